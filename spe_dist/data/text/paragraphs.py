"""Which lines of a text belong together: wrapped lines are joined to paragraphs, others stand by themselves.

A text is wrapped where its lines have a width: the first word of the next line would not have fitted into most lines.
Sentences must go on over the lines, too, since lines that are sentences may happen to have about one length.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Literal

from spe_dist.data.text.lines import Line

LinesChoice = Literal["auto", "wrapped", "separate"]

MAX_PARAGRAPH_CHARACTERS = 200_000  # of joined lines
SHORT_LINE_SHARE = 0.6  # of the usual length: shorter lines do not reach the margin where a text is wrapped
USUAL_LINE_CHARACTERS = 66  # where there is no line to measure
WIDTH_QUANTILE = 0.9  # of the lines' lengths: the width, since some lines of a wrapped text are longer
FILLED_SHARE_OF_WIDTH = 0.85  # letters of a proportional font are no measure of a line
FILLED_SHARE = 0.5  # of the lines before another one: those that are filled; others end paragraphs or are headings
FILLED_SHARE_WITHOUT_CASE = 0.75  # where no line goes on in lower case, which shows less
GOES_ON_SHARE = 0.15  # of the lines: those that go on in lower case, or sentence ends inside lines

_SENTENCE_END = re.compile(r"[.!?:;][\"'\u2019\u201d)\]]*\s*$")
_INNER_SENTENCE_END = re.compile(r"(?:[^\W\d_]{2}|\d{3})[\"')\]]*\s?[.!?]+[\"')\]]*\s+[\"'(\[]*[A-Z]")
_BULLET = re.compile(r"\s*(?:[-*\u2022\u2013]|\(?\d{1,3}[.)])\s")


def full_line_characters(lines: Iterable[str], choice: LinesChoice = "auto") -> int | None:
    """Characters from which on a line is full, so that its sentence may go on in the next one.

    None where each line stands by itself.

    Args:
        lines: the first lines of a text, blank ones included.
        choice: whether the text is wrapped; "auto" measures it.
    """
    stripped = [line.strip() for line in lines]
    pairs = [(a, b) for a, b in pairwise(stripped) if a and b and not _BULLET.match(b)]
    lengths = sorted(len(before) for before, _ in pairs) or [USUAL_LINE_CHARACTERS]
    full = int(SHORT_LINE_SHARE * lengths[len(lengths) // 2])
    if choice == "auto":
        width = lengths[min(len(lengths) - 1, int(WIDTH_QUANTILE * len(lengths)))]
        return full if _is_wrapped(pairs, width, full) else None
    return full if choice == "wrapped" else None


def _is_wrapped(pairs: Sequence[tuple[str, str]], width: int, full: int) -> bool:
    """Whether most lines are filled up to a width, and sentences go on over them."""
    least = FILLED_SHARE_OF_WIDTH * width
    filled = sum(1 for before, after in pairs if len(before) + 1 + len(after.split(maxsplit=1)[0]) > least)
    if filled < FILLED_SHARE * len(pairs):
        return False
    open_pairs = [(before, after) for before, after in pairs if not _SENTENCE_END.search(before)]
    limit = GOES_ON_SHARE * len(pairs)
    if sum(1 for _, after in open_pairs if after[0].islower()) > limit:
        return True
    n_full = sum(1 for before, _ in open_pairs if len(before) >= full)
    n_inner = sum(len(_INNER_SENTENCE_END.findall(before)) for before, _ in pairs)
    return filled >= FILLED_SHARE_WITHOUT_CASE * len(pairs) and 2 * n_full > len(pairs) and n_inner > limit


def paragraphs(lines: Iterable[Line], full: int | None) -> Iterator[list[Line] | None]:
    """Lines that belong together, to be split into sentences as one text; None for each blank or bad line.

    full: as `full_line_characters` gives it.
    """
    held: list[Line] = []
    characters = 0
    for line in lines:
        is_blank = line.is_bad or not line.text.strip()
        if held and (is_blank or full is None or not _joins(held[-1].text, line.text, full, characters)):
            yield held
            held, characters = [], 0
        if is_blank:
            yield None
        else:
            held.append(line)
            characters += len(line.text)
    if held:
        yield held


def _joins(before: str, after: str, full: int, characters: int) -> bool:
    """Whether a wrapped text goes on in the next line: not behind a heading, before a list's item or beyond a limit."""
    if characters > MAX_PARAGRAPH_CHARACTERS or _BULLET.match(after):
        return False
    return len(before.strip()) >= full or after.lstrip()[:1].islower()


def joined(lines: Sequence[Line]) -> str:
    """The text of a paragraph, its line breaks as they are."""
    if len(lines) == 1:
        return lines[0].text
    return "".join(part for line in lines[:-1] for part in (line.text, line.end)) + lines[-1].text


def text_paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """The paragraphs of a text in memory, each with its first character."""
    if "\n" not in text:
        yield 0, text
        return
    lines, start = [], 0
    for number, line in enumerate(text.split("\n"), 1):
        lines.append(Line(number, start, line))
        start += len(line) + 1
    for paragraph in paragraphs(lines, full_line_characters(line.text for line in lines)):
        if paragraph is not None:
            yield paragraph[0].start, joined(paragraph)
