"""Entity, Relation and Ent+Rel precision, recall and F1 (METHOD.md, Scores; paper, section 4 and Tables 2-9).

An entity is right where its type and boundaries are; a relation where its type, its direction and the boundaries of
both arguments are; Ent+Rel (the paper's "exactly match") also asks for the types of both arguments. The scores are
micro averages over sets, so duplicates count once, in gold and in predictions.

- All gold counts in recall: entities that overlap or have gaps, what lies across sentences, what the words of a
  distantly labelled sentence do not hold, relations whose arguments are marked as no entities (an argument without a
  type has no right one, so such a relation is never right in Ent+Rel).
- A predicted relation counts as predicted only where its arguments are among the predicted entities, for Ent+Rel with
  the types that the relation gives them; `notices` says how many do not.
- What names words that the sentence does not hold (nyt format) counts like all else; it is right by its text.
- Relations have a direction. Types named as symmetric have none: their two directions are one relation.
- Several types on one span are several entities, and relations of each are several relations in Ent+Rel.
- Precision is 0 without predictions, recall is 0 without gold, and F1 = 2 tp / (predicted + gold) is 0 without either;
  tables show a dash in this last case, where there was nothing to find and nothing was found.

Nothing here knows a model or a file format.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from spe_dist.extraction.corpora.corpus import Corpus
from spe_dist.extraction.scoring.alignment import aligned
from spe_dist.extraction.scoring.ceiling import Ceiling, CeilingTally
from spe_dist.extraction.scoring.counts import (
    ACROSS,
    ENTITY_GROUPS,
    LENGTH_GROUPS,
    Counts,
    Group,
    GroupTally,
    Tally,
    UnitCounts,
    entities_group,
    length_group,
    unit_counts,
)
from spe_dist.extraction.scoring.matching import (
    METRICS,
    Marked,
    mark_across,
    mark_gold,
    mark_predicted,
)


@dataclass(frozen=True)
class Scores:
    """Counts of one set of predictions, and from them precision, recall and F1 as fractions of 1.

    Attributes:
        entity: counts over all types; `entity.f1`, `entity.recall`, ...
        relation: the same for relations.
        ent_rel: the same for relations whose arguments' types are right too.
        entity_by_type: counts by type.
        relation_by_type: counts by type.
        ent_rel_by_type: counts by type.
        by_entities: by the number of distinct gold entities in the sentence.
        by_length: by the number of words in the sentence.
        symmetric: relation types that were scored without direction.
        with_direction: where there are such types, the scores of all relations with their direction.
        notices: what did not count as it stands in the files, by reason.
        ceiling: the highest recall that the model can have on this gold, and what lowers it.
        units: counts by document or sentence, for `significance`.
    """

    entity: Counts
    relation: Counts
    ent_rel: Counts
    entity_by_type: dict[str, Counts]
    relation_by_type: dict[str, Counts]
    ent_rel_by_type: dict[str, Counts]
    by_entities: dict[str, Group]
    by_length: dict[str, Group]
    sentences: int
    documents: int
    symmetric: tuple[str, ...] = ()
    with_direction: Scores | None = None
    notices: dict[str, int] = field(default_factory=dict)
    ceiling: Ceiling = field(default_factory=Ceiling)
    units: UnitCounts = field(default_factory=lambda: unit_counts([], "nothing"), compare=False)

    @property
    def exact_f1_sum(self) -> float:
        """Entity F1 + Ent+Rel F1, by which fine-tuning keeps the best epoch (METHOD.md, Fine-tuning)."""
        return self.entity.f1 + self.ent_rel.f1

    @property
    def f1s(self) -> dict[str, float]:
        """F1 by metric."""
        return {metric: self.total(metric).f1 for metric in METRICS}

    @property
    def measured_f1s(self) -> dict[str, float]:
        """The same without metrics of which there is nothing: those of relations in a corpus of entities alone."""
        return {name: f1 for name, f1 in self.f1s.items() if not self.total(name).is_empty}

    @property
    def direction(self) -> str:
        """The convention in words."""
        if not self.symmetric:
            return "relations with direction (the default)"
        return f"relations with direction, but {', '.join(self.symmetric)} without"

    def total(self, metric: str) -> Counts:
        """The counts of a metric, over all types."""
        return getattr(self, metric)

    def by_type(self, metric: str) -> dict[str, Counts]:
        """The counts of a metric by type, in alphabetical order."""
        return getattr(self, f"{metric}_by_type")

    def to_json(self) -> dict[str, Any]:
        """Numbers for machines: fractions of 1 and counts, under the names of the attributes."""
        return {
            "sentences": self.sentences,
            "documents": self.documents,
            "direction": self.direction,
            "symmetric": list(self.symmetric),
            **{metric: self.total(metric).to_json() for metric in METRICS},
            **{
                f"{metric}_by_type": {name: counts.to_json() for name, counts in self.by_type(metric).items()}
                for metric in METRICS
            },
            "by_entities": {name: group.to_json() for name, group in self.by_entities.items()},
            "by_length": {name: group.to_json() for name, group in self.by_length.items()},
            "notices": dict(self.notices),
            "ceiling": self.ceiling.to_json(),
            "with_direction": None if self.with_direction is None else self.with_direction.to_json(),
        }


def score(gold: Corpus, predicted: Corpus, symmetric: Collection[str] = (), given_entities: bool = False) -> Scores:
    """Score predictions against gold, sentence by sentence.

        gold, predicted = read_corpus("test.json"), read_corpus("predicted.json", predictions=True)
        scores = score(gold, predicted)
        print(f"{scores.entity.f1:.1%}", scores.relation_by_type["Live_In"].recall)

    Args:
        gold: the corpus as it should be marked.
        predicted: the same sentences as a system marked them, matched by `alignment.aligned`. Documents may be divided
            differently.
        symmetric: relation types whose direction does not matter. `Scores.with_direction` then has the scores with
            direction too.
        given_entities: the predictions are relations between the gold entities, which raises the ceiling of recall.

    Returns:
        Counts, and fractions of 1. `scoring.table.scores_table` makes a table of them.

    Raises:
        DataError: the two corpora do not hold the same sentences.
    """
    predicted = aligned(gold, predicted)
    directed = _score(gold, predicted, (), given_entities) if symmetric else None
    return _score(gold, predicted, tuple(sorted(set(symmetric))), given_entities, directed)


def _score(
    gold: Corpus,
    predicted: Corpus,
    symmetric: tuple[str, ...],
    given_entities: bool,
    with_direction: Scores | None = None,
) -> Scores:
    notices: Counter[str] = Counter()
    across = mark_across(gold, predicted, symmetric, notices)
    predicted_sentences = iter(predicted.sentences)
    is_one_document = len(gold.documents) == 1
    units: list[Tally] = []
    by_entities, by_length, ceiling = GroupTally(), GroupTally(), CeilingTally(None, given_entities)
    for number, document in enumerate(gold.documents):
        unit = Tally()
        for sentence in document.sentences:
            marked = mark_gold(sentence, symmetric)
            found = mark_predicted(next(predicted_sentences), symmetric, notices)
            ceiling.add(marked)
            unit.add(marked, found)
            by_entities.add(entities_group(len(marked.entity)), marked, found)
            by_length.add(length_group(len(sentence.words)), marked, found)
            if is_one_document:
                units.append(unit)
                unit = Tally()
        if number in across.gold or number in across.predicted:
            if is_one_document and number not in across.gold:  # units follow from gold alone, or no two systems pair
                unit = units.pop()
            marked, found = across.gold.get(number, Marked()), across.predicted.get(number, Marked())
            ceiling.add_across(marked)
            for tally in (unit, by_entities.tallies[ACROSS], by_length.tallies[ACROSS]):
                tally.add(marked, found)
        if not is_one_document or unit.counts:
            units.append(unit)
    _count_duplicates(gold, "gold", notices)
    _count_duplicates(predicted, "predicted", notices)
    has_documents = not is_one_document and len(gold.documents) != gold.n_sentences
    described = f"{len(gold.documents):,} documents" if has_documents else f"{gold.n_sentences:,} sentences"
    if is_one_document and len(units) > gold.n_sentences:
        described += " and what lies across them"
    counts = unit_counts(units, described)
    scores = _collect(gold, counts, by_entities, by_length, symmetric, with_direction, notices)
    return replace(scores, ceiling=ceiling.ceiling())


def _count_duplicates(corpus: Corpus, whose: str, notices: Counter[str]) -> None:
    for sentence in corpus.sentences:
        repeated = {
            "entities": len(sentence.entities) - len(set(sentence.entities)),
            "relations": len(sentence.relations) - len(set(sentence.relations)),
        }
        for what, times in repeated.items():
            if times:
                notices[f"{whose} {what} given more than once (counted once)"] += times


def _collect(
    gold: Corpus,
    units: UnitCounts,
    by_entities: GroupTally,
    by_length: GroupTally,
    symmetric: tuple[str, ...],
    with_direction: Scores | None,
    notices: Counter[str],
) -> Scores:
    sums = units.counts_UN3.sum(axis=0, dtype=np.int64)
    totals = {name: Counts(*map(int, row)) for name, row in zip(units.names, sums, strict=True)}
    types: dict[str, dict[str, Counts]] = {metric: {} for metric in METRICS}
    for (metric, kind), counts in totals.items():
        if kind is not None:
            types[metric][kind] = counts
    return Scores(
        entity=totals["entity", None],
        relation=totals["relation", None],
        ent_rel=totals["ent_rel", None],
        entity_by_type=types["entity"],
        relation_by_type=types["relation"],
        ent_rel_by_type=types["ent_rel"],
        by_entities=by_entities.groups(ENTITY_GROUPS),
        by_length=by_length.groups(LENGTH_GROUPS),
        sentences=gold.n_sentences,
        documents=len(gold.documents),
        symmetric=symmetric,
        with_direction=with_direction,
        notices=dict(notices),
        units=units,
    )
