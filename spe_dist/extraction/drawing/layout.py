"""Where the words, entities and relations of a drawn sentence stand: geometry alone, in pixels.

Words fill rows from the left. The width of a word follows from its characters (the drawing forces it upon the font),
so nothing has to be measured in a browser. Below its words an entity has a band with its type; entities that overlap
have bands on different levels, the shortest next to the words. Above the words a relation is an arc; arcs above the
same words are on different levels, the shortest next to the words, so neither arcs nor labels share a place. A
relation between two rows leaves at the right border and comes in at the left one, and each half names the other end.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from spe_dist.extraction.corpora.corpus import Entity, Relation, Sentence

CHARACTER = 8.4  # a character's width at 14 px, as nearly all fixed-width fonts have it: 0.6 em
SMALL_CHARACTER = 6.6  # at 11 px
GAP = 9.0  # between words
PAD = 3.0  # of an entity's box on each side
LABEL_PAD = 4.0
ARC_MARGIN = 6.0  # between arcs on one level
LONGEST_NAME = 18  # characters of the other end in a label


@dataclass(frozen=True)
class PlacedWord:
    text: str
    row: int
    x: float
    width: float


@dataclass(frozen=True)
class Segment:
    """The part of an entity that stands on one row."""

    row: int
    left: float
    right: float


@dataclass(frozen=True)
class Box:
    entity: Entity
    segments: tuple[Segment, ...]
    level: int


@dataclass(frozen=True)
class Arc:
    """A relation, or its half on one row. An end is None where it leaves or comes in at the border."""

    relation: Relation
    row: int
    left: float
    right: float
    left_end: str | None  # "head" or "tail"
    right_end: str | None
    label: str
    label_left: float
    label_right: float
    level: int = 0


@dataclass(frozen=True)
class Layout:
    width: float
    words: tuple[PlacedWord, ...]
    boxes: tuple[Box, ...]
    arcs: tuple[Arc, ...]
    rows: int

    def arc_levels(self, row: int) -> int:
        return max((arc.level + 1 for arc in self.arcs if arc.row == row), default=0)

    def box_levels(self, row: int) -> int:
        return max((box.level + 1 for box in self.boxes if any(s.row == row for s in box.segments)), default=0)


def columns_of(text: str) -> int:
    """Fixed-width columns that a text takes: wide characters (Chinese, emoji) two, combining marks none."""
    return sum(_columns_of_character(character) for character in text)


def _columns_of_character(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def small_width(text: str) -> float:
    return columns_of(text) * SMALL_CHARACTER


def label_room(text: str) -> float:
    """The width that a label needs, with a cross before it and some distance from others."""
    return small_width(f"✗ {text}") + 2 * LABEL_PAD


def lay_out(sentence: Sentence, columns: int) -> Layout:
    """Place everything on rows of `columns` characters; a word longer than that makes its row longer."""
    entities = all_entities(sentence)
    words = _place_words(sentence.words, entities, columns * CHARACTER)
    widest_labels = (label_room(f"{relation.type} ({'x' * LONGEST_NAME})") for relation in sentence.relations)
    width = max([columns * CHARACTER, *(word.x + word.width + 2 * PAD for word in words), *widest_labels])
    levels = _box_levels(entities)
    leads = _leads(sentence.words, entities)
    boxes = {e: Box(e, _segments(e, words, leads), levels[e]) for e in entities}
    arcs = _arcs(list(dict.fromkeys(sentence.relations)), boxes, sentence.words, width)
    rows = words[-1].row + 1 if words else 0
    return Layout(width, tuple(words), tuple(boxes.values()), tuple(arcs), rows)


def all_entities(sentence: Sentence) -> list[Entity]:
    """Each entity once, in the order of the text; arguments of relations that are marked as no entity come too."""
    arguments = [e for relation in sentence.relations for e in (relation.head, relation.tail)]
    return sorted(dict.fromkeys([*sentence.entities, *arguments]), key=lambda e: (e.start, -e.end, e.type))


def shown_type(entity: Entity) -> str:
    return entity.type or "no entity"


def _leads(words: Sequence[str], entities: Sequence[Entity]) -> tuple[list[float], list[float]]:
    """Room before and after each word, so that each type fits below the words of its entity."""
    before, after = [0.0] * len(words), [0.0] * len(words)
    for entity in sorted(entities, key=lambda e: e.end - e.start):
        inside = range(entity.start, entity.end)
        has = sum(columns_of(words[i]) * CHARACTER + before[i] + after[i] for i in inside) + GAP * (len(inside) - 1)
        lacks = label_room(shown_type(entity)) - has
        if lacks > 0 and inside:
            before[entity.start] += lacks / 2
            after[entity.end - 1] += lacks / 2
    return before, after


def _place_words(words: Sequence[str], entities: Sequence[Entity], width: float) -> list[PlacedWord]:
    """Fill rows; the words of an entity stay on one row where they fit on one."""
    before, after = _leads(words, entities)
    placed: list[PlacedWord] = []
    x, row = PAD, 0
    for first, end in _chunks(len(words), entities):
        advances = [before[i] + columns_of(words[i]) * CHARACTER + after[i] + GAP for i in range(first, end)]
        is_kept = sum(advances) <= width
        for i, advance in zip(range(first, end), advances, strict=True):
            needed = sum(advances) if is_kept and i == first else advance
            if x > PAD and x + needed - GAP + PAD > width and (not is_kept or i == first):
                x, row = PAD, row + 1
            placed.append(PlacedWord(words[i], row, x + before[i], columns_of(words[i]) * CHARACTER))
            x += advance
    return placed


def _chunks(n_words: int, entities: Sequence[Entity]) -> list[tuple[int, int]]:
    """The sentence cut between entities that do not overlap, and between all other words."""
    is_inside = [False] * (n_words + 1)  # whether a cut before this word would cut an entity
    for entity in entities:
        for i in range(entity.start + 1, entity.end):
            is_inside[i] = True
    cuts = [i for i in range(n_words + 1) if not is_inside[i]]
    return list(pairwise(cuts))


def _box_levels(entities: Sequence[Entity]) -> dict[Entity, int]:
    """The lowest level on which nothing that overlaps stands yet, the shortest entities first."""
    levels: dict[Entity, int] = {}
    for entity in sorted(entities, key=lambda e: (e.end - e.start, e.start, e.type)):
        taken = {level for other, level in levels.items() if other.start < entity.end and entity.start < other.end}
        levels[entity] = next(level for level in range(len(entities)) if level not in taken)
    return levels


def _segments(
    entity: Entity, words: Sequence[PlacedWord], leads: tuple[list[float], list[float]]
) -> tuple[Segment, ...]:
    """Its words, row by row; a discontinuous entity has a segment, or more, for each of its parts."""
    before, after = leads
    segments: list[Segment] = []
    for start, end in entity.fragments or (entity.span,):
        rows: dict[int, list[int]] = {}
        for i in range(start, end):
            rows.setdefault(words[i].row, []).append(i)
        for row, inside in rows.items():
            first, last = inside[0], inside[-1]
            right = words[last].x + words[last].width + after[last] + PAD
            segments.append(Segment(row, words[first].x - before[first] - PAD, right))
    return tuple(segments)


def _arcs(relations: Sequence[Relation], boxes: dict[Entity, Box], words: Sequence[str], width: float) -> list[Arc]:
    pairs = [_nearest(boxes[r.head], boxes[r.tail]) for r in relations]
    anchors = _anchors(pairs)
    arcs: list[Arc] = []
    for number, (relation, (head, tail)) in enumerate(zip(relations, pairs, strict=True)):
        head_x, tail_x = anchors[number, "head"], anchors[number, "tail"]
        if head.row == tail.row:
            ends = sorted([(head_x, "head"), (tail_x, "tail")])
            arcs.append(_arc(relation, head.row, ends[0], ends[1], relation.type, width))
            continue
        for end, segment, x, other in (("head", head, head_x, relation.tail), ("tail", tail, tail_x, relation.head)):
            label = f"{relation.type} ({_name(other, words)})"
            is_first = segment.row == min(head.row, tail.row)
            left, right = ((x, end), (width, None)) if is_first else ((0.0, None), (x, end))
            arcs.append(_arc(relation, segment.row, left, right, label, width))
    return _with_levels(arcs)


def _nearest(head: Box, tail: Box) -> tuple[Segment, Segment]:
    pairs = [(h, t) for h in head.segments for t in tail.segments]
    return min(pairs, key=lambda pair: (abs(pair[0].row - pair[1].row), abs(pair[0].left - pair[1].left)))


def _anchors(pairs: Sequence[tuple[Segment, Segment]]) -> dict[tuple[int, str], float]:
    """Where each arc's ends stand: spread over their entity, those that go left to the left, far ones inside."""
    ends: dict[Segment, list[tuple[tuple[int, float], int, str]]] = {}
    for number, (head, tail) in enumerate(pairs):
        for end, here, there in (("head", head, tail), ("tail", tail, head)):
            way = (there.row, there.left) > (here.row, here.left) or (here == there and end == "tail")
            distance = abs(there.row - here.row) * 1e6 + abs(there.left - here.left)
            ends.setdefault(here, []).append(((1, -distance) if way else (0, distance), number, end))
    return {
        (number, end): segment.left + (segment.right - segment.left) * (i + 1) / (len(listed) + 1)
        for segment, listed in ends.items()
        for i, (_, number, end) in enumerate(sorted(listed))
    }


def _name(entity: Entity, words: Sequence[str]) -> str:
    name = " ".join(words[entity.start : entity.end])
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1].rstrip()}…"


def _arc(
    relation: Relation,
    row: int,
    left: tuple[float, str | None],
    right: tuple[float, str | None],
    label: str,
    width: float,
) -> Arc:
    """An arc with its label in the middle, moved as far as the borders demand."""
    room = label_room(label)
    label_left = max(0.0, min((left[0] + right[0] - room) / 2, width - room))
    return Arc(relation, row, left[0], right[0], left[1], right[1], label, label_left, label_left + room)


def _with_levels(arcs: Sequence[Arc]) -> list[Arc]:
    """Each arc above all shorter ones that share a place with it."""
    placed: list[Arc] = []
    for arc in sorted(arcs, key=lambda a: (a.right - a.left, a.left)):
        low, high = reach(arc)
        below = [p.level for p in placed if p.row == arc.row and _overlaps(reach(p), (low, high))]
        placed.append(replace(arc, level=max(below, default=-1) + 1))
    return placed


def reach(arc: Arc) -> tuple[float, float]:
    """From where to where an arc or its label goes."""
    return min(arc.left, arc.label_left), max(arc.right, arc.label_right)


def _overlaps(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] < other[1] + ARC_MARGIN and other[0] < one[1] + ARC_MARGIN
