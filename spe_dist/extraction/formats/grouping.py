"""Formats of sentences: which neighbouring sentences are a document, and what a document has beside its sentences.

A key (`doc_key`, `articleId`) tells documents apart: neighbours with the same key are one document, a sentence
without a key is one of its own. What belongs to no single sentence stands in the field `document_fields` of a
document's first sentence: ours, other tools pass over it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spe_dist.extraction.corpora.corpus import CrossEntity, CrossRelation, Document, Entity, Relation, Sentence
from spe_dist.extraction.formats.node import Node
from spe_dist.extraction.formats.notices import TEXTS, Losses, typed_entities

DOCUMENT_FIELDS = "document_fields"


@dataclass(frozen=True)
class Keyed:
    """A sentence that was read, with its document's key and what the record says of the document."""

    key: str
    sentence: Sentence
    document: Node | None = None


def keyed(
    record: Node,
    words: tuple[str, ...],
    entities: Sequence[Entity],
    relations: Sequence[Relation],
    notices: Counter[str],
    *,
    own_fields: Collection[str],
    key_fields: Sequence[str],
    kept: Mapping[str, Any] | None = None,
) -> Keyed:
    """The sentence of a record. Fields that are not `own_fields` of the format, and `kept`, become its `extra`."""
    fields = record.fields()
    extra = {name: value for name, value in fields.items() if name not in own_fields and name != DOCUMENT_FIELDS}
    sentence = Sentence(
        words,
        typed_entities(entities, relations, notices),
        tuple(relations),
        origin=record.place,
        extra={**extra, **(kept or {})},
    )
    document = record.child(DOCUMENT_FIELDS) if DOCUMENT_FIELDS in fields else None
    return Keyed(document_key(record, *key_fields), sentence, document)


def document_key(record: Node, *names: str) -> str:
    """The id of a sentence's document: the first of some fields that its record has; empty where there is none."""
    key = next((record.child(name) for name in names if record.has(name)), None)
    if key is None or key.value is None:
        return ""
    if isinstance(key.value, bool) or not isinstance(key.value, str | int | float):
        key.fail("the id of a document is a string or a number", "write it in double quotes, or remove it")
    return str(key.value)


def group(sentences: Iterable[Keyed]) -> Iterator[Document]:
    """Documents of neighbouring sentences with the same key."""
    held: list[Keyed] = []
    for keyed in sentences:
        if held and (not keyed.key or keyed.key != held[0].key or keyed.document is not None):
            yield _document(held)
            held = []
        held.append(keyed)
    if held:
        yield _document(held)


def _document(group: list[Keyed]) -> Document:
    sentences = tuple(keyed.sentence for keyed in group)
    node = group[0].document
    if node is None:
        return Document(group[0].key, sentences)
    words = sum(len(sentence.words) for sentence in sentences)
    entities, relations = node.child("entities").items(), node.child("relations").items()
    return Document(
        group[0].key,
        sentences,
        cross_entities=tuple(_cross_entity(entity, words) for entity in entities),
        cross_relations=tuple(
            CrossRelation(
                relation.child("type").label(),
                _cross_entity(relation.child("head"), words),
                _cross_entity(relation.child("tail"), words),
            )
            for relation in relations
        ),
        extra=node.child("extra").fields(),
    )


def _cross_entity(node: Node, words: int) -> CrossEntity:
    start, end = node.child("start").integer(), node.child("end").integer()
    if not 0 <= start < end <= words:
        node.fail(f"the document has {words} words", "give 0 <= start < end, counted in words of the document")
    return CrossEntity(start, end, node.child("type").string())


def ungroup(documents: Iterable[Document], losses: Losses) -> Iterator[tuple[str, int, Sentence, Mapping[str, Any]]]:
    """For each sentence its document's key, its position in the document, itself, and fields for its record."""
    previous = ""
    for number, document in enumerate(documents, 1):
        key = document.id
        if (key and key == previous) or (not key and len(document.sentences) > 1):
            key = f"{key or 'document'}#{number}"
            losses["documents with a new id, since neighbouring documents need different ones"] += 1
        if not document.sentences:
            losses["documents without sentences"] += 1
            continue
        previous = key
        for index, sentence in enumerate(document.sentences):
            losses[TEXTS] += sentence.text is not None
            yield key, index, sentence, _fields(document, losses) if index == 0 else {}


def extra_beside_ids(sentence: Sentence, key: str) -> dict[str, Any]:
    """A sentence's further fields without those that say again what `sentId` and `articleId` of its record say."""
    extra = {name: value for name, value in sentence.extra.items() if name != "sentId"}
    article = extra.get("articleId")
    if key == ("" if article is None else str(article)):
        extra.pop("articleId", None)
    return extra


def _fields(document: Document, losses: Losses) -> Mapping[str, Any]:
    if not (document.extra or document.cross_entities or document.cross_relations):
        return {}
    where = f"kept in {DOCUMENT_FIELDS!r}, which other tools pass over"
    losses[f"entities across sentences, {where}"] += len(document.cross_entities)
    losses[f"relations across sentences, {where}"] += len(document.cross_relations)
    for name in document.extra:
        losses[f"document fields {name!r}, {where}"] += 1
    return {
        DOCUMENT_FIELDS: {
            "entities": [vars(entity) for entity in document.cross_entities],
            "relations": [
                {"type": relation.type, "head": vars(relation.head), "tail": vars(relation.tail)}
                for relation in document.cross_relations
            ],
            "extra": dict(document.extra),
        }
    }
