"""SpERT: one sentence a record, as a JSON list or as JSON lines.

    {"tokens": ["Ada", "wrote", "code"], "entities": [{"type": "Person", "start": 0, "end": 1},
     {"type": "Work", "start": 2, "end": 3}], "relations": [{"type": "Made", "head": 0, "tail": 1}], "orig_id": 7}

Offsets count words, ends are exclusive; a relation names its arguments by their positions in the list of entities.
Neighbours with the same `doc_key` (else `orig_id`) are sentences of one document.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from spe_dist.extraction.corpora.corpus import Document, Entity, Relation
from spe_dist.extraction.formats.grouping import Keyed, group, keyed, ungroup
from spe_dist.extraction.formats.node import Node
from spe_dist.extraction.formats.notices import (
    Losses,
    add_extra,
    argument_positions,
    note_further_fields,
    note_words,
    read_probability,
    with_probability,
    without_fragments,
)

OWN_FIELDS = ("tokens", "entities", "relations", "doc_key")
ENTITY_FIELDS = ("type", "start", "end", "probability")
RELATION_FIELDS = ("type", "head", "tail", "probability")


def read(records: Iterable[Node], notices: Counter[str], predictions: bool = False) -> Iterator[Document]:
    """Documents of records; predictions have the same fields as gold."""
    return group(_sentence(record, notices) for record in records)


def _sentence(record: Node, notices: Counter[str]) -> Keyed:
    words = record.child("tokens").words()
    note_words(words, notices)
    entities = [_entity(node, len(words), notices) for node in record.child("entities").items()]
    relations = [_relation(node, entities, notices) for node in record.child("relations").items()]
    return keyed(record, words, entities, relations, notices, own_fields=OWN_FIELDS, key_fields=("doc_key", "orig_id"))


def _entity(node: Node, words: int, notices: Counter[str]) -> Entity:
    start, end, name = node.child("start").integer(), node.child("end").integer(), node.child("type").label_or_none()
    if not 0 <= start < end <= words:
        node.fail(
            f"the sentence has {words} words and an entity covers [start, end) of them",
            "give 0 <= start < end <= words: the first word alone is start 0, end 1",
        )
    note_further_fields(node, ENTITY_FIELDS, "entities", notices)
    return Entity(start, end, name, probability=read_probability(node))


def _relation(node: Node, entities: list[Entity], notices: Counter[str]) -> Relation:
    arguments = []
    for role in ("head", "tail"):
        position = node.child(role)
        if not 0 <= position.integer() < len(entities):
            position.fail(
                f"the sentence has {len(entities)} entities", "give the argument's position in `entities`, from 0"
            )
        arguments.append(entities[position.integer()])
    note_further_fields(node, RELATION_FIELDS, "relations", notices)
    return Relation(node.child("type").label(), arguments[0], arguments[1], read_probability(node))


def write(documents: Iterable[Document], losses: Losses) -> Iterator[dict[str, Any]]:
    """One record for each sentence."""
    for key, _, whole, fields in ungroup(documents, losses):
        sentence = without_fragments(whole, losses)
        entities, positions = argument_positions(sentence, losses)
        record: dict[str, Any] = {
            "tokens": list(sentence.words),
            "entities": [with_probability({"type": e.type, "start": e.start, "end": e.end}, e) for e in entities],
            "relations": [
                with_probability({"type": relation.type, "head": head, "tail": tail}, relation)
                for relation, (head, tail) in zip(sentence.relations, positions, strict=True)
            ],
        }
        orig_id = sentence.extra.get("orig_id")
        if key != ("" if orig_id is None else str(orig_id)):
            record["doc_key"] = key
        yield add_extra({**record, **fields}, sentence.extra, losses)
