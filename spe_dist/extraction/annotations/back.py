"""From labelled words back to labelled characters, so that tools of annotation can read what a corpus or a model has.

A document that was annotated by character, and still has these annotations, comes back exactly as it was read. Others
are placed in their text where that is known (predictions on raw text); where only words are known, these are joined by
spaces and sentences by line breaks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from spe_dist.extraction.annotations.document import (
    AnnotatedDocument,
    AnnotatedRelation,
    AnnotatedSpan,
    Characters,
    keeping,
)
from spe_dist.extraction.annotations.sentences import find_words
from spe_dist.extraction.annotations.settings import DEFAULTS
from spe_dist.extraction.corpora.corpus import CrossEntity, Document, Sentence, Span
from spe_dist.extraction.formats.notices import Losses, argument_positions, note_words

FIELDS_OF_DOCUMENTS = "further fields of documents"
UNTYPED = "entities without a type, which are only arguments"
UNTYPED_ARGUMENTS = "relations of entities without a type"
PROBABILITIES = "probabilities of entities and relations"
OTHER_WORDS = "texts in which other words or sentences are found when they are read"
FIELDS = "further fields of sentences"
UNPLACED_MENTIONS = "mentions and relations whose words are not in their sentence"

# Chinese and Japanese with their punctuation, Thai, Lao, Burmese, Khmer
_WITHOUT_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3000-\u30ff\u3400-\u9fff\uff00-\uffef\U00020000-\U0003ffff]"
)


def characters_of(document: Document, losses: Losses) -> AnnotatedDocument:
    """The document as a text with labelled characters. `losses` counts what that has no place for."""
    if document.annotated is not None:
        return document.annotated
    text, sentences = _text_and_words(document)
    marks = _Marks([place for places in sentences for place in places])
    first = 0
    for sentence in document.sentences:
        _count_losses(sentence, losses)
        marks.add(sentence, first, losses)
        first += len(sentence.words)
    for entity in document.cross_entities:
        marks.position(entity)
    for relation in document.cross_relations:
        head, tail = marks.position(relation.head), marks.position(relation.tail)
        marks.relations.append(AnnotatedRelation(head, tail, relation.type))
    return AnnotatedDocument(
        document.id,
        text,
        tuple(marks.spans),
        tuple(marks.relations),
        tokens=tuple(marks.places),
        sentences=tuple((places[0][0], places[-1][1]) for places in sentences if places),
        origin=document.sentences[0].origin if document.sentences else "",
        extra=document.extra,
    )


def for_tools(document: AnnotatedDocument, losses: Losses) -> AnnotatedDocument:
    """The document for a tool that has no place for entities without a type, probabilities and given words."""
    own = keeping(document, [bool(span.type) for span in document.spans])
    losses[UNTYPED] += len(document.spans) - len(own.spans)
    losses[UNTYPED_ARGUMENTS] += len(document.relations) - len(own.relations)
    losses[PROBABILITIES] += sum(span.probability is not None for span in own.spans)
    losses[PROBABILITIES] += sum(relation.probability is not None for relation in own.relations)
    losses[FIELDS_OF_DOCUMENTS] += len(document.extra)
    if own.tokens is None and own.sentences is None:
        return own
    bare = replace(own, tokens=None, sentences=None)
    losses[OTHER_WORDS] += find_words(bare, DEFAULTS, Counter()) != find_words(own, DEFAULTS, Counter())
    return bare


class _Marks:
    """Spans and relations of a document, whose words are at `places`."""

    def __init__(self, places: Sequence[Characters]) -> None:
        self.places = places
        self.spans: list[AnnotatedSpan] = []
        self.relations: list[AnnotatedRelation] = []
        self._known: dict[tuple[Span, str], int] = {}  # positions of spans by their words in the document and type

    def add(self, sentence: Sentence, first: int, losses: Losses) -> None:
        """The marks of a sentence. `first`: its first word in the document."""
        entities, positions = argument_positions(sentence, losses)
        before = len(self.spans)
        for entity in entities:
            parts = [(first + start, first + end) for start, end in entity.fragments or (entity.span,)]
            self._add((first + entity.start, first + entity.end), parts, entity.type, entity.probability)
        for relation, (head, tail) in zip(sentence.relations, positions, strict=True):
            self.relations.append(AnnotatedRelation(before + head, before + tail, relation.type, relation.probability))

    def position(self, entity: CrossEntity) -> int:
        """Of an entity in words of the document, which is added where it is not there yet."""
        span = entity.start, entity.end
        if (span, entity.type) not in self._known:
            self._add(span, [span], entity.type, None)
        return self._known[span, entity.type]

    def _add(self, span: Span, parts: Sequence[Span], type: str, probability: float | None) -> None:
        self._known.setdefault((span, type), len(self.spans))
        pieces = tuple((self.places[start][0], self.places[end - 1][1]) for start, end in parts)
        self.spans.append(AnnotatedSpan(pieces, type, probability=probability))


def _text_and_words(document: Document) -> tuple[str, list[list[Characters]]]:
    """The document's text, and for each sentence where its words are in it."""
    if document.text is None:
        return _joined([sentence.words for sentence in document.sentences])
    sentences = []
    for start, sentence in zip(document.starts, document.sentences, strict=True):
        assert sentence.char_spans is not None, "the sentences of a document with a text have their words in it"
        sentences.append([(start + first, start + end) for first, end in sentence.char_spans])
    return document.text, sentences


def _joined(sentences: Sequence[Sequence[str]]) -> tuple[str, list[list[Characters]]]:
    """Words with a space between them, but for scripts that have none; each sentence is a line."""
    parts: list[str] = []
    places: list[list[Characters]] = []
    position = 0
    for words in sentences:
        if parts:
            parts.append("\n")
            position += 1
        places.append([])
        before = ""
        for word in words:
            if before and not (_WITHOUT_SPACES.match(before[-1:]) and _WITHOUT_SPACES.match(word)):
                parts.append(" ")
                position += 1
            parts.append(word)
            places[-1].append((position, position + len(word)))
            position += len(word)
            before = word
    return "".join(parts), places


def _count_losses(sentence: Sentence, losses: Losses) -> None:
    note_words(sentence.words, losses)
    losses[FIELDS] += len(sentence.extra) - bool(sentence.unplaced)
    losses[UNPLACED_MENTIONS] += sum(map(len, sentence.unplaced.values()))
