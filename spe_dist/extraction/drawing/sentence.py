"""What a page needs to draw a sentence: its text cut at the borders of entities, its relations, the types of a page.

The text is the original one, character by character; entities are nested pieces of it. Where two entities cross, the
second one is cut at the end of the first. The browser lays everything out (templates/drawing.js).
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Union

from spe_dist.extraction.corpora.corpus import Entity, Relation, Sentence, Span
from spe_dist.extraction.drawing.colours import colours_of

if TYPE_CHECKING:
    from spe_dist.extraction.predicting import results

NO_TYPE = "no entity"  # what an argument is called that is marked as no entity
CONTROL_PICTURES = {code: 0x2400 + code for code in range(32)} | {ord(c): " " for c in "\t\n\r"}

Mark = Callable[[Entity | Relation], str]
Drawable = Union[Sentence, "results.Sentence"]  # of a corpus, or of Extractor.predict


@dataclass(frozen=True)
class Kind:
    """A type on a page. `number` is its class in the page's style, `hue` its colour in degrees."""

    name: str
    number: int
    hue: int
    count: int


@dataclass(frozen=True)
class Kinds:
    """All types of a page, by name; those of entities and of relations are different ones even if named alike."""

    entities: Mapping[str, Kind]
    relations: Mapping[str, Kind]

    @classmethod
    def of(cls, sentences: Iterable[Sentence], others: Iterable[Sentence] = ()) -> Kinds:
        """The types in some sentences and how often they occur there; those of `others` come too, uncounted."""
        entities, relations = _count_types(sentences)
        more_entities, more_relations = _count_types(others)
        return cls(_kinds(entities, more_entities, 0), _kinds(relations, more_relations, len(entities | more_entities)))

    @property
    def all(self) -> list[Kind]:
        return [*self.entities.values(), *self.relations.values()]


def _count_types(sentences: Iterable[Sentence]) -> tuple[Counter[str], Counter[str]]:
    entities: Counter[str] = Counter()
    relations: Counter[str] = Counter()
    for sentence in sentences:
        entities.update(entity.type for entity in all_entities(sentence))
        relations.update(relation.type for relation in dict.fromkeys(sentence.relations))
    return entities, relations


def _kinds(counts: Counter[str], others: Iterable[str], first: int) -> dict[str, Kind]:
    names = sorted({*counts, *others})
    hues = colours_of(names)
    return {name: Kind(name, first + i, hues[name], counts[name]) for i, name in enumerate(names)}


@dataclass
class Piece:
    """A piece of text, or a part of an entity that holds further pieces."""

    text: str = ""
    entity: DrawnEntity | None = None
    is_first: bool = True  # of the entity's parts
    inner: list[Piece] = field(default_factory=list)


@dataclass(frozen=True)
class DrawnEntity:
    """An entity as templates take it."""

    number: int  # in the sentence
    kind: Kind
    name: str
    probability: float | None
    mark: str


@dataclass(frozen=True)
class DrawnRelation:
    """A relation as templates take it; its arguments by the numbers of drawn entities."""

    kind: Kind
    head: int
    tail: int
    head_text: str
    tail_text: str
    probability: float | None
    mark: str


@dataclass(frozen=True)
class DrawnSentence:
    """A sentence as pieces of text and entities, and its relations."""

    pieces: list[Piece]
    relations: list[DrawnRelation]


def drawn_sentence(sentence: Sentence, kinds: Kinds, mark: Mark | None = None) -> DrawnSentence:
    """A sentence as templates take it; duplicates once, arguments that are no entities included.

    Args:
        kinds: the types of the page, `Kinds.of` of all its sentences.
        mark: gives an entity or relation "wrong", to be drawn dashed and with a cross, or "".
    """
    text, spans = text_and_spans(sentence)
    entities = all_entities(sentence)
    numbers = {entity: i for i, entity in enumerate(entities)}
    drawn = [
        DrawnEntity(i, kinds.entities[e.type], e.type or NO_TYPE, e.probability, mark(e) if mark else "")
        for i, e in enumerate(entities)
    ]
    parts = [
        (spans[start][0], spans[end - 1][1], i)
        for i, entity in enumerate(entities)
        for start, end in entity.fragments or (entity.span,)
    ]
    relations = [
        DrawnRelation(
            kinds.relations[r.type],
            numbers[r.head],
            numbers[r.tail],
            _text_of(r.head, text, spans),
            _text_of(r.tail, text, spans),
            r.probability,
            mark(r) if mark else "",
        )
        for r in dict.fromkeys(sentence.relations)
    ]
    return DrawnSentence(_nested(text, parts, drawn), relations)


def annotated(sentence: Drawable) -> Sentence:
    """A sentence with spans in words, also of one that an Extractor gave."""
    if isinstance(sentence, Sentence):
        return sentence
    entities = {e: Entity(e.start_word, e.end_word, e.type, probability=e.probability) for e in sentence.entities}
    relations = [Relation(r.type, entities[r.head], entities[r.tail], r.probability) for r in sentence.relations]
    start = sentence.start_char
    spans = tuple((first - start, end - start) for first, end in sentence.word_offsets)
    return Sentence(sentence.words, tuple(entities.values()), tuple(relations), sentence.text, spans)


def all_entities(sentence: Sentence) -> list[Entity]:
    """Each entity once, in the order of the text; arguments of relations that are marked as no entity come too."""
    arguments = [e for relation in sentence.relations for e in (relation.head, relation.tail)]
    return sorted(dict.fromkeys([*sentence.entities, *arguments]), key=lambda e: (e.start, -e.end, e.type))


def text_and_spans(sentence: Sentence) -> tuple[str, tuple[Span, ...]]:
    """The original text and where its words are in it; words with spaces between them where no text is known."""
    if sentence.text is not None and sentence.char_spans is not None:
        return sentence.text, sentence.char_spans
    spans, start = [], 0
    for word in sentence.words:
        spans.append((start, start + len(word)))
        start += len(word) + 1
    return " ".join(sentence.words), tuple(spans)


def _text_of(entity: Entity, text: str, spans: Sequence[Span]) -> str:
    return _shown(text[spans[entity.start][0] : spans[entity.end - 1][1]])


def _nested(text: str, parts: Iterable[tuple[int, int, int]], entities: list[DrawnEntity]) -> list[Piece]:
    """The text as a tree of pieces. Longer entities hold shorter ones; one that crosses another is cut."""
    waiting = [(start, -end, number) for start, end, number in parts]
    heapq.heapify(waiting)
    root: list[Piece] = []
    opened: list[tuple[int, list[Piece]]] = [(len(text), root)]
    seen: set[int] = set()
    position = 0

    def advance(to: int) -> None:
        """Put the text up to a position where it belongs, and close what ends before it."""
        nonlocal position
        while True:
            end, inside = opened[-1]
            stop = min(end, to)
            if stop > position:
                inside.append(Piece(_shown(text[position:stop])))
                position = stop
            if len(opened) == 1 or end > to:
                return
            opened.pop()

    while waiting:
        start, negative_end, number = heapq.heappop(waiting)
        advance(start)
        end = min(-negative_end, opened[-1][0])
        if end < -negative_end:
            heapq.heappush(waiting, (end, negative_end, number))
        piece = Piece(entity=entities[number], is_first=number not in seen)
        seen.add(number)
        opened[-1][1].append(piece)
        opened.append((end, piece.inner))
    advance(len(text))
    return root


def _shown(text: str) -> str:
    """Line breaks and tabs as spaces; other control characters, which HTML does not allow, as their pictures."""
    return text.translate(CONTROL_PICTURES)
