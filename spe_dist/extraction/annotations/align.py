"""From labelled characters to labelled words: an annotated text becomes a document of sentences.

Nothing is lost without a count. What a sentence of words cannot hold as it is (spans that cut a word or cover none,
that go over a sentence's end, relations between sentences) is counted by reason, with the first case by name.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from spe_dist.extraction.annotations.document import (
    AnnotatedDocument,
    AnnotatedRelation,
    AnnotatedSpan,
    Characters,
)
from spe_dist.extraction.annotations.offsets import LOST_ARGUMENTS
from spe_dist.extraction.annotations.sentences import find_words
from spe_dist.extraction.annotations.settings import AnnotationSettings
from spe_dist.extraction.corpora.corpus import (
    CrossEntity,
    CrossRelation,
    Document,
    Entity,
    Relation,
    Sentence,
    Span,
    joined,
    single_spaced,
)
from spe_dist.extraction.formats.node import shown
from spe_dist.extraction.formats.notices import note, note_words, typed_entities

WIDENED = "entities that cut a word, widened to whole words"
DROPPED = "entities that cut a word, left out"
BEYOND = "entities whose offsets are not in their text, left out"
EMPTY = "entities without any character but white space, left out"
NO_WORD = "entities that cover no word, left out"
TRIMMED = "entities with white space at an end, which is not taken as theirs"
DISCONTINUOUS = "discontinuous entities"
NESTED = "entities inside another one"
CROSSING = "entities across sentences"
BETWEEN = "relations between sentences"
NO_TEXT = "texts without a word"


class _Inside(NamedTuple):
    """An entity that lies in one sentence, with the sentence's number."""

    sentence: int
    entity: Entity


_Placed = _Inside | CrossEntity


def align(document: AnnotatedDocument, settings: AnnotationSettings, notices: Counter[str]) -> Document:
    """The sentences of an annotated text, with its entities and relations in words.

    Args:
        document: with offsets in characters.
        settings: what becomes of spans that cut a word.
        notices: is given what was changed or left out, by reason.

    Raises:
        DataError: tokens or sentences of the file are not in order, or lie outside the text.
    """
    words = _Words(find_words(document, settings, notices))
    if not words.starts:
        note(notices, NO_TEXT, _origin(document))
    placed = [_placed(span, document, words, settings, notices) for span in document.spans]
    relations, cross_relations = _relations(document, placed, words, notices)
    entities: list[list[Entity]] = [[] for _ in words.sentences]
    for item in placed:
        if isinstance(item, _Inside):
            entities[item.sentence].append(item.entity)
    sentences = tuple(
        _sentence(document, number, places, entities[number], relations[number], notices)
        for number, places in enumerate(words.sentences)
    )
    return Document(
        document.key,
        sentences,
        cross_entities=tuple(item for item in placed if isinstance(item, CrossEntity)),
        cross_relations=tuple(cross_relations),
        extra=document.extra,
        text=document.text,
        starts=tuple(places[0][0] for places in words.sentences),
        annotated=document,
    )


class _Words:
    """The words of a document in one row, and in sentences."""

    def __init__(self, sentences: Sequence[Sequence[Characters]]) -> None:
        self.sentences = sentences
        self.starts = [start for places in sentences for start, _ in places]
        self.ends = [end for places in sentences for _, end in places]
        self.first = [0, *accumulate(map(len, sentences))]  # word of each sentence, and one behind all words

    def sentence_of(self, word: int) -> int:
        return bisect_right(self.first, word) - 1

    def touched(self, start: int, end: int) -> Span | None:
        """The words that have a character of [start, end); None where there is none."""
        first, behind = bisect_right(self.ends, start), bisect_left(self.starts, end)
        return (first, behind) if first < behind else None

    def characters(self, first: int, behind: int) -> Characters:
        return self.starts[first], self.ends[behind - 1]


def _placed(
    span: AnnotatedSpan,
    document: AnnotatedDocument,
    words: _Words,
    settings: AnnotationSettings,
    notices: Counter[str],
) -> _Placed | None:
    """A span in words; None where it is left out."""
    parts = _parts(span, document, words, settings, notices)
    if parts is None:
        return None
    first, behind = parts[0][0], parts[-1][1]
    number = words.sentence_of(first)
    if words.sentence_of(behind - 1) != number:
        note(notices, CROSSING, _named(document, span))
        return CrossEntity(first, behind, span.type)
    if len(parts) > 1:
        note(notices, DISCONTINUOUS, _named(document, span))
    before = words.first[number]
    own = tuple((start - before, end - before) for start, end in parts)
    fragments = own if len(own) > 1 else ()
    return _Inside(number, Entity(own[0][0], own[-1][1], span.type, fragments, span.probability))


def _parts(
    span: AnnotatedSpan,
    document: AnnotatedDocument,
    words: _Words,
    settings: AnnotationSettings,
    notices: Counter[str],
) -> list[Span] | None:
    """The words of a span, parts that touch made one; None where it is left out."""
    if not all(0 <= start <= end <= len(document.text) for start, end in span.pieces):
        note(
            notices,
            BEYOND,
            f"{list(map(list, span.pieces))} of {len(document.text):,} characters, {_place(document, span)}",
        )
        return None
    pieces = [piece for piece in (_trimmed(document.text, piece) for piece in span.pieces) if piece[0] < piece[1]]
    if not pieces:
        note(notices, EMPTY, _place(document, span))
        return None
    if pieces != list(span.pieces):
        note(notices, TRIMMED, _named(document, span))
    touched = [words.touched(*piece) for piece in pieces]
    ranges = [found for found in touched if found is not None]
    if len(ranges) < len(pieces):
        note(notices, NO_WORD, _named(document, span))
        return None
    cut = next((i for i, piece in enumerate(pieces) if words.characters(*ranges[i]) != piece), None)
    if cut is not None:
        start, end = words.characters(*ranges[cut])
        reason = WIDENED if settings.cut_words == "widen" else DROPPED
        note(notices, reason, f"{_named(document, span)} cuts {_quoted(document.text[start:end])}")
        if settings.cut_words == "drop":
            return None
    return joined(ranges)


def _relations(
    document: AnnotatedDocument, placed: Sequence[_Placed | None], words: _Words, notices: Counter[str]
) -> tuple[list[list[Relation]], list[CrossRelation]]:
    """The relations of each sentence, and those that are in none."""
    inside: list[list[Relation]] = [[] for _ in words.sentences]
    between = []
    for relation in document.relations:
        head, tail = placed[relation.head], placed[relation.tail]
        if head is None or tail is None:
            note(notices, LOST_ARGUMENTS, _named_relation(document, relation))
        elif isinstance(head, _Inside) and isinstance(tail, _Inside) and head.sentence == tail.sentence:
            found = Relation(relation.type, head.entity, tail.entity, relation.probability)
            inside[head.sentence].append(found)
        else:
            note(notices, BETWEEN, _named_relation(document, relation))
            between.append(CrossRelation(relation.type, _in_document(head, words), _in_document(tail, words)))
    return inside, between


def _in_document(placed: _Placed, words: _Words) -> CrossEntity:
    """An entity with its place in words of the document."""
    if isinstance(placed, CrossEntity):
        return placed
    entity = placed.entity
    before = words.first[placed.sentence]
    return CrossEntity(before + entity.start, before + entity.end, entity.type)


def _sentence(
    document: AnnotatedDocument,
    number: int,
    places: Sequence[Characters],
    entities: Sequence[Entity],
    relations: Sequence[Relation],
    notices: Counter[str],
) -> Sentence:
    start, end = places[0][0], places[-1][1]
    words = tuple(document.text[first:last] for first, last in places)
    note_words(words, notices)
    _note_nested(entities, words, document, notices)
    return Sentence(
        words,
        typed_entities(entities, relations, notices),
        tuple(relations),
        text=document.text[start:end],
        char_spans=tuple((first - start, last - start) for first, last in places),
        origin=f"{_origin(document)}, sentence {number + 1}",
    )


def _note_nested(
    entities: Sequence[Entity], words: Sequence[str], document: AnnotatedDocument, notices: Counter[str]
) -> None:
    """Count the entities whose words are a part of another one's."""
    outer = None
    for entity in sorted(entities, key=lambda entity: (entity.start, -entity.end)):
        if entity.fragments:
            continue
        if outer is None or entity.end > outer.end:
            outer = entity
        elif entity.span != outer.span:
            inner, whole = (_quoted(" ".join(words[part.start : part.end])) for part in (entity, outer))
            note(notices, NESTED, f"{inner} in {whole}, {_origin(document)}")


def _trimmed(text: str, piece: Characters) -> Characters:
    """A piece without white space at its ends."""
    start, end = piece
    part = text[start:end]
    return start + len(part) - len(part.lstrip()), max(start, end - len(part) + len(part.rstrip()))


def _origin(document: AnnotatedDocument) -> str:
    return document.origin or document.key or "a text"


def _place(document: AnnotatedDocument, span: AnnotatedSpan) -> str:
    return f"{span.type}{f' {span.key}' if span.key else ''}, {_origin(document)}"


def _named(document: AnnotatedDocument, span: AnnotatedSpan) -> str:
    return f"{_quoted(_text(document, span))}, {_place(document, span)}"


def _named_relation(document: AnnotatedDocument, relation: AnnotatedRelation) -> str:
    head, tail = (_quoted(_text(document, document.spans[end])) for end in (relation.head, relation.tail))
    return f"{relation.type} of {head} and {tail}, {_origin(document)}"


def _text(document: AnnotatedDocument, span: AnnotatedSpan) -> str:
    return " ... ".join(document.text[max(0, start) : end] for start, end in span.pieces)


def _quoted(text: str) -> str:
    return shown(single_spaced(text))
