"""Relations between entities that are given: what the model reads in place of those that it would find.

Types of given entities need not be among the model's. Relations are classified by the spans and their contexts, and by
the given types where the model's relation head reads types; in place of one that it does not know it reads its own most
probable one.
As in training, of several entities on one span the first one takes part, a discontinuous one takes no part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from spe_dist.errors import ConfigError, DataError
from spe_dist.extraction.corpora.corpus import Entity, Labels, Sentence, Span
from spe_dist.extraction.joint.examples import NO_GOLD, Example

EntitiesChoice = Literal["found", "given"]

OVERLONG_GIVEN = "given entities that no window holds, without relations"
APART_GIVEN = "pairs of given entities that no window holds, left out"
OVERLAPPING_GIVEN = "pairs of given entities that overlap, left out"
ACROSS_GIVEN = "given entities across sentences, left out"
DISCONTINUOUS_GIVEN = "given entities that are discontinuous, without relations"
REPEATED_GIVEN = "given entities on the span of another one, without relations"


def check_choice(choice: str) -> bool:
    """Whether entities are given. Raises ConfigError for a choice that is none."""
    if choice not in ("found", "given"):
        raise ConfigError(f"entities={choice!r} is unknown; choose 'found' or 'given'")
    return choice == "given"


def with_given(
    examples: Iterable[Example], sentences: Sequence[Sentence], labels: Labels, notices: Counter[str]
) -> list[Example]:
    """The examples with the entities of their sentences as spans, with the classes of those types that `labels` have.

    Counts those that take no part.
    """
    class_of_type = {name: i + 1 for i, name in enumerate(labels.entity_types)}
    result = []
    for example in examples:
        entities = dict.fromkeys(sentences[example.sentence].entities)
        spans = entity_of_span(entities)
        n_discontinuous = sum(bool(entity.fragments) for entity in entities)
        notices[DISCONTINUOUS_GIVEN] += n_discontinuous
        notices[REPEATED_GIVEN] += len(entities) - n_discontinuous - len(spans)
        rows = np.array(sorted(spans), dtype=np.int64).reshape(-1, 2)
        classes = np.array([class_of_type.get(spans[span].type, 0) for span in sorted(spans)], dtype=np.int64)
        result.append(replace(example, gold=replace(NO_GOLD, spans=rows, classes=classes)))
    return result


def entity_of_span(entities: Iterable[Entity]) -> dict[Span, Entity]:
    """The entity that takes part in relations, for each span that has one."""
    found: dict[Span, Entity] = {}
    for entity in entities:
        if not entity.fragments:
            found.setdefault(entity.span, entity)
    return found


def certain(entities: Iterable[Entity]) -> tuple[Entity, ...]:
    """Entities, each once, with the probability that they are given with, or 1."""
    distinct = dict.fromkeys(entities)
    return tuple(e if e.probability is not None else replace(e, probability=1.0) for e in distinct)


def check_entities(sentence: Sentence, name: str) -> None:
    """Check that all entities lie in their sentence. Raises DataError for the first one that does not."""
    for entity in sentence.entities:
        if not 0 <= entity.start < entity.end <= len(sentence.words):
            raise DataError(
                f"{name}: entity {entity.type!r} from word {entity.start} to {entity.end} is not in its sentence of "
                f"{len(sentence.words)} words; give 0 <= start < end, counted in words, the end exclusive"
            )
