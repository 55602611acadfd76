"""What every tool of annotation by character gives: a text, typed spans of it, and relations between the spans.

Offsets are half-open and count Unicode code points, as Python does. Nothing here knows of words or sentences: they are
found by `align`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

Characters = tuple[int, int]  # half-open, in code points of the text


@dataclass(frozen=True)
class AnnotatedSpan:
    """A typed span of a text.

    Attributes:
        pieces: its parts in reading order; more than one where it is discontinuous.
        type: its label.
        key: its id in the file, for messages and for relations; None where it has none.
        probability: of a prediction; None for gold. Spans are equal whatever it is.
    """

    pieces: tuple[Characters, ...]
    type: str
    key: str | None = None
    probability: float | None = field(default=None, compare=False)

    @property
    def start(self) -> int:
        return self.pieces[0][0]

    @property
    def end(self) -> int:
        return self.pieces[-1][1]


@dataclass(frozen=True)
class AnnotatedRelation:
    """A directed, typed relation.

    Attributes:
        head, tail: positions of its arguments in the document's spans.
        probability: of a prediction; None for gold. Relations are equal whatever it is.
    """

    head: int
    tail: int
    type: str
    probability: float | None = field(default=None, compare=False)


@dataclass(frozen=True)
class AnnotatedDocument:
    """A text with its annotations.

    Attributes:
        key: its id in the file, or the name of its file; empty where there is none.
        text: as the tool has it; offsets count its characters.
        spans, relations: in the order of the file.
        tokens: where each word is, of tools that have their own; None where words are still to be found.
        sentences: where each sentence is, where the file says so; None where they are still to be found.
        origin: file and line, for messages.
        extra: further fields of the file, which conversions keep.
    """

    key: str
    text: str
    spans: tuple[AnnotatedSpan, ...] = ()
    relations: tuple[AnnotatedRelation, ...] = ()
    tokens: tuple[Characters, ...] | None = None
    sentences: tuple[Characters, ...] | None = None
    origin: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict, compare=False)


def keeping(document: AnnotatedDocument, kept: Sequence[bool]) -> AnnotatedDocument:
    """The document without some of its spans and their relations. `kept`: for each span whether it stays."""
    if all(kept):
        return document
    positions = list(accumulate(kept, initial=0))
    return replace(
        document,
        spans=tuple(span for span, stays in zip(document.spans, kept, strict=True) if stays),
        relations=tuple(
            replace(relation, head=positions[relation.head], tail=positions[relation.tail])
            for relation in document.relations
            if kept[relation.head] and kept[relation.tail]
        ),
    )
