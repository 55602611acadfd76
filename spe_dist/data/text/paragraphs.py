"""Which lines of a text belong together: wrapped lines are joined to paragraphs, others stand by themselves.

A text is wrapped where its lines have a width: the first word of the next line would not have fitted into most lines.
Sentences must go on over the lines, too, since lines that are sentences may happen to have about one length. Width is
counted in columns, of which a Chinese character has two. What joins lines here keeps their line breaks, so that
offsets hold; whether one stands for a space is for `sentences` to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Literal

from spe_dist.data.text.characters import first_unit
from spe_dist.data.text.lines import Line

LinesChoice = Literal["auto", "wrapped", "separate"]

MAX_PARAGRAPH_CHARACTERS = 200_000  # of joined lines
SHORT_LINE_SHARE = 0.6  # of the usual length: shorter lines do not reach the margin where a text is wrapped
USUAL_LINE_COLUMNS = 66  # where there is no line to measure
WIDTH_QUANTILE = 0.9  # of the lines' lengths: the width, since some lines of a wrapped text are longer
FILLED_SHARE_OF_WIDTH = 0.85  # letters of a proportional font are no measure of a line
FILLED_SHARE = 0.5  # of the lines before another one: those that are filled; others end paragraphs or are headings
FILLED_SHARE_WITHOUT_CASE = 0.75  # where no line goes on in lower case, which shows less
FILLED_SHARE_WITHOUT_MARKS = 0.9  # where no mark ends sentences either, as in Thai
GOES_ON_SHARE = 0.15  # of the lines: those that go on in lower case, or sentence ends inside lines

_CAPITALS = "".join(filter(str.isupper, map(chr, range(0x0600))))  # Latin, Greek, Cyrillic, Armenian
_STOPS = "\u0589\u061f\u06d4\u0964\u0965\u1362\u1367\u1368\u17d4\u17d5\u104b\u0f0d\u0f0e\u3002\uff01\uff1f\uff61"
_CLOSING = "\"'\u2019\u201d)\\]"
_CLOSING_ELSEWHERE = f"{_CLOSING}\u00bb\u203a\u300d\u300f\u300b\u3011\uff09"
_WITHOUT_CASE = "\u0590-\u109f\u10d0-\u1c7f\u2e80-\ud7ff\uf900-\ufefc\uff66-\uff9f\U00020000-\U000323af"
_SENTENCE_END = re.compile(
    rf"(?:[.!?:;][{_CLOSING}]*|[{_STOPS}\u061b\uff1a\uff1b][{_CLOSING_ELSEWHERE}]*|[.!?][{_CLOSING_ELSEWHERE}]*)\s*$"
)
_INNER_SENTENCE_END = re.compile(
    rf"(?:[^\W\d_]{{2}}|\d{{3}})[{_CLOSING}]*\s?[.!?]+[{_CLOSING}]*\s+[\"'(\[]*[{_CAPITALS}]"
)
# Where there is no case: a mark of these scripts, or another one behind two letters.
_INNER_END_WITHOUT_CASE = re.compile(
    rf"[{_STOPS}][{_CLOSING_ELSEWHERE}]*\s*(?=[^\s{_STOPS}{_CLOSING_ELSEWHERE}])"
    rf"|(?<=\S\S)[.!?]+[{_CLOSING_ELSEWHERE}]*\s+[\"'(\[\u00ab]*(?=[{_WITHOUT_CASE}])"
)
_INNER_SPACE = re.compile(r"(?<=[\u0e01-\u0edf])\s+(?=[\u0e01-\u0edf])")  # of Thai and Lao, which have no marks
_WIDE = re.compile(
    "[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff01-\uff60\uffe0-\uffe6"
    "\U00020000-\U0003fffd]"
)
_BULLET = re.compile(r"\s*(?:[-*\u2022\u2013]|\(?\d{1,3}[.)])\s")


def columns(line: str) -> int:
    """How wide a line is where all letters have one width; East Asian ones have two."""
    return len(line) if line.isascii() else len(line) + len(_WIDE.findall(line))


def full_line_columns(lines: Iterable[str], choice: LinesChoice = "auto") -> int | None:
    """Columns from which on a line is full, so that its sentence may go on in the next one.

    None where each line stands by itself.

    Args:
        lines: the first lines of a text, blank ones included.
        choice: whether the text is wrapped; "auto" measures it.
    """
    stripped = [line.strip() for line in lines]
    pairs = [(a, b) for a, b in pairwise(stripped) if a and b and not _BULLET.match(b)]
    lengths = sorted(columns(before) for before, _ in pairs) or [USUAL_LINE_COLUMNS]
    full = int(SHORT_LINE_SHARE * lengths[len(lengths) // 2])
    if choice == "auto":
        return full if _is_wrapped(pairs, full) else None
    return full if choice == "wrapped" else None


def _is_wrapped(pairs: Sequence[tuple[str, str]], full: int) -> bool:
    """Whether most lines are filled up to a width, and sentences go on over them."""
    filled = _count_filled(pairs, columns)
    if any(_WIDE.search(before) for before, _ in pairs):  # some programs count characters where others count columns
        filled = max(filled, _count_filled(pairs, len))
    if filled < FILLED_SHARE * len(pairs):
        return False
    open_pairs = [(before, after) for before, after in pairs if not _SENTENCE_END.search(before)]
    limit = GOES_ON_SHARE * len(pairs)
    if sum(1 for _, after in open_pairs if after[0].islower()) > limit:
        return True
    n_full = sum(1 for before, _ in open_pairs if columns(before) >= full)
    if filled < FILLED_SHARE_WITHOUT_CASE * len(pairs) or 2 * n_full <= len(pairs):
        return False
    n_inner = sum(_count_inner_ends(before) for before, _ in pairs)
    if filled >= FILLED_SHARE_WITHOUT_MARKS * len(pairs):
        n_inner += sum(len(_INNER_SPACE.findall(before)) for before, _ in pairs)
    return n_inner > limit


def _count_filled(pairs: Sequence[tuple[str, str]], measure: Callable[[str], int]) -> int:
    """Lines into which the first word of the next one, or its first character, would not have fitted."""
    lengths = sorted(measure(before) for before, _ in pairs) or [0]
    width = lengths[min(len(lengths) - 1, int(WIDTH_QUANTILE * len(lengths)))]
    least = FILLED_SHARE_OF_WIDTH * width
    count = 0
    for before, after in pairs:
        unit, is_cut = first_unit(after)
        following = min(measure(unit), width - least) if is_cut else 1 + measure(unit)
        count += measure(before) + following > least
    return count


def _count_inner_ends(line: str) -> int:
    """Sentences that end inside a line."""
    with_case = len(_INNER_SENTENCE_END.findall(line))
    return with_case if line.isascii() else with_case + len(_INNER_END_WITHOUT_CASE.findall(line))


def paragraphs(lines: Iterable[Line], full: int | None) -> Iterator[list[Line] | None]:
    """Lines that belong together, to be split into sentences as one text; None for each blank or bad line.

    full: as `full_line_columns` gives it.
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
    return columns(before.strip()) >= full or after.lstrip()[:1].islower()


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
    for paragraph in paragraphs(lines, full_line_columns(line.text for line in lines)):
        if paragraph is not None:
            yield paragraph[0].start, joined(paragraph)
