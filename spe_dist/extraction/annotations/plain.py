"""The plain form of texts that are annotated by character: for people who write their own.

    {"text": "Ada wrote code. It ran.", "entities": [{"start": 0, "end": 3, "type": "Person"},
     {"start": 10, "end": 14, "type": "Work"}], "relations": [{"head": 0, "tail": 1, "type": "made"}]}

One text a record, of any number of sentences, as JSON lines or as one JSON list. Offsets count characters (Unicode code
points), ends are exclusive. A relation names its arguments by their positions in `entities`, or by their `id`. All
else is optional: `relations`; `id` of the text; `pieces` of an entity in place of `start` and `end` where it is
discontinuous; `probability` of a prediction; `word_offsets` and `sentence_offsets`, which are found in the text where
they are not given. Entities of the form [0, 3, "Person"], and `label` in place of `type`, are read too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from spe_dist.extraction.annotations.document import (
    AnnotatedDocument,
    AnnotatedRelation,
    AnnotatedSpan,
    Characters,
)
from spe_dist.extraction.annotations.settings import AnnotationSettings
from spe_dist.extraction.formats.grouping import document_key
from spe_dist.extraction.formats.node import Node, positions_by_id
from spe_dist.extraction.formats.notices import (
    Losses,
    add_extra,
    note_further_fields,
    read_probability,
    with_probability,
)

OWN_FIELDS = ("id", "text", "entities", "relations", "word_offsets", "sentence_offsets")
ENTITY_FIELDS = ("id", "start", "end", "pieces", "type", "label", "text", "probability")
RELATION_FIELDS = ("id", "head", "tail", "type", "label", "probability")


def read(records: Iterable[Node], notices: Counter[str], settings: AnnotationSettings) -> Iterator[AnnotatedDocument]:
    """The texts of records with their annotations. Raises DataError for a record that is damaged."""
    for record in records:
        yield _document(record, notices)


def _document(record: Node, notices: Counter[str]) -> AnnotatedDocument:
    text = record.child("text").string()
    spans = tuple(_span(node, text, notices) for node in record.child("entities").items())
    keys = positions_by_id(record.child("entities").items())
    relations = record.child("relations").items() if record.has("relations") else []
    return AnnotatedDocument(
        document_key(record, "id"),
        text,
        spans,
        tuple(_relation(node, len(spans), keys, notices) for node in relations),
        tokens=_places(record, "word_offsets"),
        sentences=_places(record, "sentence_offsets"),
        origin=record.place,
        extra={name: value for name, value in record.fields().items() if name not in OWN_FIELDS},
    )


def _span(node: Node, text: str, notices: Counter[str]) -> AnnotatedSpan:
    if isinstance(node.value, list):
        parts = node.items()
        if len(parts) != 3:
            node.fail("an entity in brackets has three values", 'write [start, end, "type"]')
        return AnnotatedSpan(((parts[0].integer(), parts[1].integer()),), parts[2].label())
    note_further_fields(node, ENTITY_FIELDS, "entities", notices)
    if node.has("pieces"):
        pieces = tuple(sorted(place_of(piece) for piece in node.child("pieces").items()))
        if not pieces:
            node.child("pieces").fail("an entity has at least one piece", "write [[start, end], ...]")
    else:
        pieces = ((node.child("start").integer(), node.child("end").integer()),)
    key = str(node.child("id").identity()) if node.has("id") else None
    return AnnotatedSpan(pieces, _type(node).label_or_none(), key, read_probability(node))


def _relation(node: Node, n_spans: int, keys: Mapping[str, int], notices: Counter[str]) -> AnnotatedRelation:
    note_further_fields(node, RELATION_FIELDS, "relations", notices)
    head, tail = (_argument(node.child(role), n_spans, keys) for role in ("head", "tail"))
    return AnnotatedRelation(head, tail, _type(node).label(), read_probability(node))


def _argument(node: Node, n_spans: int, keys: Mapping[str, int]) -> int:
    """The position of an entity, given by itself or by the entity's id."""
    if isinstance(node.value, str):
        if node.value not in keys:
            node.fail("no entity of the record has this id", "give an entity's `id`, or its position from 0")
        return keys[node.value]
    if not 0 <= node.integer() < n_spans:
        node.fail(f"the record has {n_spans} entities", "give the argument's position in `entities`, from 0")
    return node.integer()


def _type(node: Node) -> Node:
    return node.child("label" if node.has("label") and not node.has("type") else "type")


def _places(record: Node, name: str) -> tuple[Characters, ...] | None:
    if not record.has(name) or record.child(name).value is None:
        return None
    return tuple(place_of(node) for node in record.child(name).items())


def place_of(node: Node) -> Characters:
    """Two offsets. Raises DataError where the value is not [start, end]."""
    parts = node.items()
    if len(parts) != 2:
        node.fail("a place in the text is a pair of offsets", "write [start, end]")
    return parts[0].integer(), parts[1].integer()


def write(documents: Iterable[AnnotatedDocument], losses: Losses) -> Iterator[dict[str, Any]]:
    """One record for each text."""
    for document in documents:
        record: dict[str, Any] = {"id": document.key} if document.key else {}
        record |= {
            "text": document.text,
            "entities": [_written_span(span) for span in document.spans],
            "relations": [
                with_probability({"head": relation.head, "tail": relation.tail, "type": relation.type}, relation)
                for relation in document.relations
            ],
        }
        if document.tokens is not None:
            record["word_offsets"] = [list(place) for place in document.tokens]
        if document.sentences is not None:
            record["sentence_offsets"] = [list(place) for place in document.sentences]
        yield add_extra(record, document.extra, losses)


def _written_span(span: AnnotatedSpan) -> dict[str, Any]:
    place: dict[str, Any] = {"start": span.start, "end": span.end}
    if len(span.pieces) > 1:
        place = {"pieces": [list(piece) for piece in span.pieces]}
    name = {"id": span.key} if span.key is not None else {}
    return with_probability({**name, **place, "type": span.type}, span)
