"""doccano: one text a line, spans by character, relations between the spans' ids.

    {"id": 7, "text": "Ada wrote code.", "entities": [{"id": 41, "label": "Person", "start_offset": 0, "end_offset": 3},
     {"id": 45, "label": "Work", "start_offset": 10, "end_offset": 14}],
     "relations": [{"id": 3, "from_id": 41, "to_id": 45, "type": "wrote"}], "Comments": []}
    {"id": 8, "text": "Ada wrote code.", "label": [[0, 3, "Person"], [10, 14, "Work"]]}

The second form is that of projects without relations; older versions call its fields `labels` or `annotations`, and the
text `data`. Offsets are half-open and count code points. Ids number all spans of a project, so they may be any. What is
written to be imported has the name of a text as `doc_key`, since doccano numbers texts by itself; it comes back with an
export, as all further fields do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from typing import Any

from spe_dist.extraction.annotations.back import for_tools
from spe_dist.extraction.annotations.document import AnnotatedDocument, AnnotatedRelation, AnnotatedSpan
from spe_dist.extraction.annotations.settings import AnnotationSettings
from spe_dist.extraction.formats.grouping import document_key
from spe_dist.extraction.formats.node import Node, positions_by_id
from spe_dist.extraction.formats.notices import FRAGMENTS, Losses, note, note_further_fields, read_probability

TEXT_FIELDS = ("text", "data")
SPAN_FIELDS = ("label", "labels", "annotations")  # of projects without relations
KEY_FIELD = "doc_key"
OWN_FIELDS = {"id", KEY_FIELD, "entities", "relations", *TEXT_FIELDS, *SPAN_FIELDS}
ENTITY_FIELDS = ("id", "label", "start_offset", "end_offset", "probability")
RELATION_FIELDS = ("id", "from_id", "to_id", "type", "probability")
ACCOUNTS = ("user", "created_at", "updated_at")  # of older exports: who annotated and when
NUMBERED_LABELS = "labels that are numbers, as exports without the labels' names have them (taken as types)"
EXAMPLE = 'write [first character, character behind the last, "TYPE"]; export a project of sequence labelling'


def recognises(fields: dict[str, Any]) -> bool:
    """Whether a record is one of doccano. Where it has no entities, it may also be one of the plain form."""
    if not any(isinstance(fields.get(name), str) for name in TEXT_FIELDS) or {"tokens", "words"} & fields.keys():
        return False
    if "entities" in fields:
        return isinstance(fields["entities"], list) and all(
            isinstance(entity, dict) and "start_offset" in entity for entity in fields["entities"]
        )
    return any(isinstance(fields.get(name), list) for name in SPAN_FIELDS)


def read(
    records: Iterable[Node], notices: Counter[str], settings: AnnotationSettings | None = None
) -> Iterator[AnnotatedDocument]:
    """The texts of an export, in order.

    Raises:
        DataError: a field is missing or has another kind of value, or a relation names an unknown entity.
    """
    for record in records:
        yield _document(record, notices)


def _document(record: Node, notices: Counter[str]) -> AnnotatedDocument:
    text = record.child("text" if record.has("text") or not record.has("data") else "data").string()
    relations: list[AnnotatedRelation] = []
    if record.has("entities"):
        nodes = record.child("entities").items()
        spans = [_entity(node, notices) for node in nodes]
        positions = positions_by_id(nodes)
        if record.has("relations"):
            relations = [_relation(node, positions, notices) for node in record.child("relations").items()]
    else:
        name = next(name for name in SPAN_FIELDS if record.has(name))
        spans = [_span(node, notices) for node in record.child(name).items()]
    return AnnotatedDocument(
        document_key(record, KEY_FIELD, "id"),
        text,
        tuple(spans),
        tuple(relations),
        origin=record.place,
        extra={key: value for key, value in record.fields().items() if key not in OWN_FIELDS and value not in ([], {})},
    )


def _entity(node: Node, notices: Counter[str]) -> AnnotatedSpan:
    start, end = node.child("start_offset").integer(), node.child("end_offset").integer()
    note_further_fields(node, (*ENTITY_FIELDS, *ACCOUNTS), "entities", notices)
    key = str(node.child("id").identity()) if node.has("id") else None
    return AnnotatedSpan(((start, end),), _label(node.child("label"), notices), key, read_probability(node))


def _span(node: Node, notices: Counter[str]) -> AnnotatedSpan:
    """A span of a project without relations: a list, or an object in the oldest versions."""
    if isinstance(node.value, dict):
        return _entity(node, notices)
    if not isinstance(node.value, list) or len(node.value) != 3:
        node.fail("a labelled span is expected", EXAMPLE)
    start, end, label = node.items()
    return AnnotatedSpan(((start.integer(), end.integer()),), _label(label, notices))


def _label(node: Node, notices: Counter[str]) -> str:
    if isinstance(node.value, int) and not isinstance(node.value, bool):
        note(notices, NUMBERED_LABELS, node.place)
        return str(node.value)
    return node.label()


def _relation(node: Node, positions: Mapping[str, int], notices: Counter[str]) -> AnnotatedRelation:
    arguments = []
    for role in ("from_id", "to_id"):
        identity = node.child(role)
        key = str(identity.identity())
        if key not in positions:
            identity.fail("no entity of the text has this id", "give the id of an entity, or remove the relation")
        arguments.append(positions[key])
    note_further_fields(node, (*RELATION_FIELDS, *ACCOUNTS), "relations", notices)
    return AnnotatedRelation(arguments[0], arguments[1], node.child("type").label(), read_probability(node))


def write(documents: Iterable[AnnotatedDocument], losses: Losses) -> Iterator[dict[str, Any]]:
    """One record for each text, to be imported: with `label` where no text has relations, as projects without them do.

    Discontinuous entities are written as one span.
    """
    texts = [for_tools(document, losses) for document in documents]
    with_relations = any(text.relations for text in texts)
    identities, arrows = count(1), count(1)
    for number, text in enumerate(texts, 1):
        losses[FRAGMENTS] += sum(len(span.pieces) > 1 for span in text.spans)
        record: dict[str, Any] = {"id": number, "text": text.text}
        if with_relations:
            own = [next(identities) for _ in text.spans]
            record["entities"] = [
                {"id": identity, "label": span.type, "start_offset": span.start, "end_offset": span.end}
                for identity, span in zip(own, text.spans, strict=True)
            ]
            record["relations"] = [
                {"id": next(arrows), "from_id": own[relation.head], "to_id": own[relation.tail], "type": relation.type}
                for relation in text.relations
            ]
            record["Comments"] = []
        else:
            record["label"] = [[span.start, span.end, span.type] for span in text.spans]
        yield {**record, KEY_FIELD: text.key} if text.key else record
