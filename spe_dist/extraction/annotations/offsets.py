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

NOT_AT_OFFSETS = "entities whose words are not at their offsets, left out"
LOST_ARGUMENTS = "relations of entities that are left out"
OTHER_UNIT = "documents whose offsets count {}, as the words of their entities show"

UTF_16 = "UTF-16 units"
# How much each character adds to an offset, by what it counts; the next character is given too.
_UNITS: dict[str, Callable[[str, str], int]] = {
    "": lambda letter, following: 1,
    UTF_16: lambda letter, following: 1 + (letter > "\uffff"),
    f"{UTF_16} and a line break as one character": lambda letter, following: (
        int(letter + following != "\r\n") + (letter > "\uffff")
    ),
    "bytes": lambda letter, following: len(letter.encode("utf-8", "surrogatepass")),
    "a line break as one character": lambda letter, following: int(letter + following != "\r\n"),
    "a line break as two characters": lambda letter, following: 1 + (letter == "\n"),
}
_BYTE_ORDER_MARK = "a byte order mark"


def check_words(
    document: AnnotatedDocument,
    words: Sequence[str | None],
    notices: Counter[str],
    unit: str = "",
) -> AnnotatedDocument:
    """The document with offsets in characters, without entities whose words stand elsewhere.

    Args:
        document: with offsets as the file has them.
        words: for each span what the file says that it covers, pieces joined by a space; None where it says nothing.
            White space and case do not matter.
        unit: what the tool's offsets count, unless the words show otherwise: characters (""), or `UTF_16`.
        notices: is given documents whose offsets count something else, and entities that are left out.
    """
    text, best, reason = document.text, document.spans, ""
    if unit and not text.isascii():
        best = _in_characters(document, unit)
    agree = _agree(text, best, words)
    if all(agree):
        return replace(document, spans=best)
    for other, mark in product(_UNITS, (0, 1)):
        if other == unit and not mark:
            continue
        spans = _in_characters(document, other, mark)
        found = _agree(text, spans, words)
        if sum(found) > sum(agree):
            best, agree = spans, found
            reason = " and ".join(filter(None, (other, _BYTE_ORDER_MARK if mark else ""))) or "characters"
    if reason:
        note(notices, OTHER_UNIT.format(reason), document.origin)
    for i, span in enumerate(best):
        if not agree[i]:
            there = shown(" ".join(document.text[start:end] for start, end in span.pieces))
            key = f" {span.key}" if span.key else ""
            note(
                notices,
                NOT_AT_OFFSETS,
                f"{span.type}{key} {shown(words[i])}, where the text has {there}, {document.origin}",
            )
    left = keeping(replace(document, spans=best), agree)
    notices[LOST_ARGUMENTS] += len(document.relations) - len(left.relations)
    return left


def _agree(text: str, spans: Sequence[AnnotatedSpan], words: Sequence[str | None]) -> list[bool]:
    return [
        said is None or same_text(said, [text[max(0, start) : max(0, end)] for start, end in span.pieces])
        for span, said in zip(spans, words, strict=True)
    ]


def _in_characters(document: AnnotatedDocument, unit: str, mark: int = 0) -> tuple[AnnotatedSpan, ...]:
    """The spans with offsets in characters, where the file's count a unit and perhaps a mark before the text."""
    text = document.text
    starts = list(accumulate(map(_UNITS[unit], text, f"{text[1:]} "), initial=mark))  # the file's, of each character
    return tuple(
        replace(span, pieces=tuple((_character(starts, start), _character(starts, end)) for start, end in span.pieces))
        for span in document.spans
    )


def _character(starts: Sequence[int], offset: int) -> int:
    """The character that begins at an offset; what lies outside the text stays so."""
    if starts[0] <= offset <= starts[-1]:
        return bisect_left(starts, offset)
    return offset - starts[0] if offset < starts[0] else len(starts) - 1 + offset - starts[-1]
