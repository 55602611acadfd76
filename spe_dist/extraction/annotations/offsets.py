"""Whether offsets say the same as the words that a file gives beside them.

Files that hold the words of each entity can be checked: offsets may count something else than characters (UTF-16 units
behind an emoji, bytes, line breaks of one or two characters, a byte order mark), and a text may have been edited after
it was annotated.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate, product

from spe_dist.extraction.annotations.document import AnnotatedDocument, AnnotatedSpan, keeping
from spe_dist.extraction.formats.node import shown
from spe_dist.extraction.formats.notices import note
from spe_dist.extraction.formats.texts import same_text

OTHER_WORDS = "entities whose words are not at their offsets, left out"
LOST_ARGUMENTS = "relations of entities that are left out"
OTHER_TEXT = "spans whose text in the file is not what stands at their offsets (the offsets are taken)"
OTHER_UNIT = "documents whose offsets count {}, as the words of their entities show"

# How much each character adds to an offset, by what it counts; the next character is given too.
_UNITS: dict[str, Callable[[str, str], int]] = {
    "": lambda letter, following: 1,
    "UTF-16 units": lambda letter, following: 1 + (letter > "\uffff"),
    "bytes": lambda letter, following: len(letter.encode("utf-8", "surrogatepass")),
    "a line break as one character": lambda letter, following: int(letter + following != "\r\n"),
    "a line break as two characters": lambda letter, following: 1 + (letter == "\n"),
}
_BYTE_ORDER_MARK = "a byte order mark"


def check_words(document: AnnotatedDocument, words: Sequence[str | None], notices: Counter[str]) -> AnnotatedDocument:
    """The document with offsets in characters, without entities whose words stand elsewhere.

    Args:
        document: with offsets as the file has them.
        words: for each span what the file says that it covers, pieces joined by a space; None where it says nothing.
            White space and case do not matter.
        notices: is given documents whose offsets count something else, and entities that are left out.
    """
    spans = document.spans
    agree = _agree(document.text, spans, words)
    if all(agree):
        return document
    for (unit, width), mark in product(_UNITS.items(), (0, 1)):
        if not unit and not mark:
            continue
        starts = list(accumulate(map(width, document.text, f"{document.text[1:]} "), initial=mark))
        counted = [_counted(span, starts) for span in document.spans]
        found = _agree(document.text, counted, words)
        if sum(found) > sum(agree):
            spans, agree = tuple(counted), found
            reason = " and ".join(filter(None, (unit, _BYTE_ORDER_MARK if mark else "")))
    if spans is not document.spans:
        note(notices, OTHER_UNIT.format(reason), document.origin)
    for i, span in enumerate(spans):
        if not agree[i]:
            there = shown(" ".join(document.text[start:end] for start, end in span.pieces))
            key = f" {span.key}" if span.key else ""
            note(
                notices,
                OTHER_WORDS,
                f"{span.type}{key} {shown(words[i])}, where the text has {there}, {document.origin}",
            )
    left = keeping(replace(document, spans=spans), agree)
    notices[LOST_ARGUMENTS] += len(document.relations) - len(left.relations)
    return left


def _agree(text: str, spans: Sequence[AnnotatedSpan], words: Sequence[str | None]) -> list[bool]:
    return [
        said is None or same_text(said, [text[max(0, start) : max(0, end)] for start, end in span.pieces])
        for span, said in zip(spans, words, strict=True)
    ]


def _counted(span: AnnotatedSpan, starts: Sequence[int]) -> AnnotatedSpan:
    """A span in characters, where character i stands at the file's offset `starts[i]`."""
    pieces = tuple((bisect_left(starts, start), bisect_left(starts, end)) for start, end in span.pieces)
    return replace(span, pieces=pieces)


def is_same_text(said: str, found: str) -> bool:
    r"""Whether two texts are the same but for white space and "\n" for a line break."""
    return said == found or bare(said) == bare(found)


def bare(text: str) -> str:
    """A text without its white space, as tools change it."""
    return "".join(text.replace("\\n", "\n").split())
