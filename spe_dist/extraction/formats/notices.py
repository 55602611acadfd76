"""What readers and writers have in common. What a format has no place for is counted, never dropped silently."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from spe_dist.extraction.annotations.document import AnnotatedRelation, AnnotatedSpan
from spe_dist.extraction.corpora.corpus import Entity, Relation, Sentence
from spe_dist.extraction.formats.node import Node

Losses = Counter[str]  # by reason, in words for the user

FRAGMENTS = "discontinuous entities, written as one span with the words between their parts"
OTHER_TYPE = "relation arguments that read back with another type (a span has one type for relations)"
NO_WORDS = "sentences without words"
BLANK_WORDS = "words that are empty or white space (the encoder reads them as unknown ones)"
UNTYPED = "entity"  # type of entities in a file that gives none
TEXTS = "sentences whose original text and character offsets are not kept"


class Notices(Counter[str]):
    """Counts by reason, and for some reasons the first place where it occurred."""

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[str, str] = {}

    def named(self) -> Counter[str]:
        """The counts above 0, their reasons with the first place."""
        return Counter({f"{reason}{self._place(reason)}": count for reason, count in self.items() if count > 0})

    def _place(self, reason: str) -> str:
        return f" (first: {self.first[reason]})" if reason in self.first else ""


def note(notices: Counter[str], reason: str, place: str) -> None:
    """Count a reason, and keep the first place where `notices` are `Notices`."""
    notices[reason] += 1
    if isinstance(notices, Notices):
        notices.first.setdefault(reason, place)


def note_words(words: Sequence[str], notices: Counter[str]) -> None:
    """Count a sentence that has no words, and words that hold nothing."""
    notices[NO_WORDS] += not words
    notices[BLANK_WORDS] += len(words) - sum(map(bool, map(str.strip, words)))


def without_fragments(sentence: Sentence, losses: Losses) -> Sentence:
    """The sentence for a format whose entities have no gaps."""
    if not any(entity.fragments for entity in sentence.entities):
        return sentence
    losses[FRAGMENTS] += sum(bool(entity.fragments) for entity in sentence.entities)
    relations = (replace(r, head=_whole(r.head), tail=_whole(r.tail)) for r in sentence.relations)
    return replace(sentence, entities=tuple(map(_whole, sentence.entities)), relations=tuple(relations))


def _whole(entity: Entity) -> Entity:
    return replace(entity, fragments=())


def add_extra(record: dict[str, Any], extra: Mapping[str, Any], losses: Losses) -> dict[str, Any]:
    """The record with the further fields that were read, where their names are free."""
    for key, value in extra.items():
        if key in record:
            losses[f"values of the field {key!r}, which has another meaning in this format"] += 1
        else:
            record[key] = value
    return record


def typed_entities(
    entities: Sequence[Entity], relations: Sequence[Relation], notices: Counter[str]
) -> tuple[Entity, ...]:
    """The entities of a sentence that was read, without those of an empty type: such one is only an argument."""
    untyped = [entity for entity in entities if not entity.type]
    if not untyped:
        return tuple(entities)
    used = {argument for relation in relations for argument in (relation.head, relation.tail)}
    notices["entities without a type, taken as no entities but as arguments of their relations"] += len(untyped)
    notices["entities without a type that no relation uses"] += sum(entity not in used for entity in untyped)
    return tuple(entity for entity in entities if entity.type)


def argument_positions(sentence: Sentence, losses: Losses) -> tuple[list[Entity], list[tuple[int, int]]]:
    """The entities to write, and for each relation the positions of its head and tail among them.

    An argument that is no entity is written as one with an empty type, which reads back as no entity.
    """
    entities = list(sentence.entities)
    positions: dict[Entity, int] = {}
    for index, entity in reversed(list(enumerate(entities))):
        positions[entity] = index

    def position(argument: Entity) -> int:
        if argument in positions:
            return positions[argument]
        if argument.type:
            losses["relation arguments with a type that are not among the entities, written without it"] += 1
            return position(replace(argument, type=""))
        losses["relation arguments that are not entities, written as entities with an empty type"] += 1
        positions[argument] = len(entities)
        entities.append(argument)
        return positions[argument]

    return entities, [(position(relation.head), position(relation.tail)) for relation in sentence.relations]


def read_probability(node: Node) -> float | None:
    """The probability of an entity or relation; None where none is given."""
    return node.child("probability").probability() if node.has("probability") else None


def with_probability(
    entry: dict[str, Any], item: Entity | Relation | AnnotatedSpan | AnnotatedRelation
) -> dict[str, Any]:
    """An entry to write, with the probability of its entity or relation if there is one."""
    return entry if item.probability is None else {**entry, "probability": item.probability}


def note_further_fields(node: Node, known: Sequence[str], kind: str, notices: Counter[str]) -> None:
    """Count fields of an entity or relation that there is no place for."""
    if len(node.fields()) > len(known) or not node.fields().keys() <= set(known):
        for name in node.fields():
            if name not in known:
                notices[f"fields {name!r} of {kind}, not kept"] += 1
