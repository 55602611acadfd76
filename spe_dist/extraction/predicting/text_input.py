"""Users' own text as sentences to predict on, with the place of each: plain text, JSON lines, standard input.

Everything streams: no more than a paragraph (bounded) is held, whatever the size of the file.

Offsets are characters (Unicode code points). In plain text they count from the start of the whole file, as
`open(file, newline="", encoding="utf-8-sig").read()` gives it: line breaks as they are, without a byte order mark. In
JSON they count from the start of the record's text; where it has none but words, the text is these joined by spaces,
and sentences by line breaks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from statistics import median
from typing import Literal, NamedTuple

from spe_dist.data.text.lines import Line
from spe_dist.data.text.sentences import cut_words, split_sentences
from spe_dist.data.text.words import SpaceSplitter, Word
from spe_dist.extraction.corpora.corpus import Sentence

MAX_UNIT_CHARACTERS = 200_000
SHORT_LINE_SHARE = 0.6  # of the usual length: shorter lines do not reach the margin where a text is wrapped
USUAL_LINE_CHARACTERS = 66  # where the text does not tell
LOWER_CASE_SHARE_OF_WRAPPED = 0.15  # of the lines that follow another one: those that go on in lower case

_LINE_END = re.compile(r"[.!?:;][\"'\u2019\u201d)\]]*\s*$")
_INNER_END = re.compile(r"[^\W\d_]{2}[\"')\]]*[.!?]+[\"')\]]*\s+[\"'(\[]*[A-Z]")
_BULLET = re.compile(r"\s*(?:[-*\u2022\u2013]|\(?\d{1,3}[.)])\s")

FormatChoice = Literal["auto", "text", "json"]
LinesChoice = Literal["auto", "wrapped", "separate"]


@dataclass(frozen=True)
class InputSettings:
    """How inputs are read."""

    format: FormatChoice = "auto"
    tokenised: bool = False  # one sentence a line, its words between spaces
    lines: LinesChoice = "auto"  # whether a sentence of plain text may go on in the next line
    text_field: str = "text"
    skip_bad: bool = False  # count lines that cannot be read instead of stopping


class Place(NamedTuple):
    """Where a sentence stands in the input."""

    file: str  # "-": standard input
    document: int  # paragraphs of text, or JSON records, counted from 0 over all inputs
    id: str | int | None  # that of a JSON record
    line: int  # from 1; in a file that is one JSON list: the item
    sentence: int  # of the document, from 0
    start: int  # its first character


class Located(NamedTuple):
    """A sentence and its place."""

    place: Place
    sentence: Sentence


def choose_lines(sample: Sequence[Line], settings: InputSettings) -> tuple[int | None, str]:
    """(short, the decision in words) from the first lines of a text.

    short: characters of a line from which on the sentence may go on in the next one; None where each line ends one.
    """
    if settings.tokenised:
        return None, "text that is tokenised, one sentence a line"
    pairs = [(a.text.strip(), b.text.strip()) for a, b in pairwise(sample)]
    pairs = [(before, after) for before, after in pairs if before and after]
    usual = median([len(before) for before, _ in pairs]) if pairs else USUAL_LINE_CHARACTERS
    short = int(SHORT_LINE_SHARE * usual)
    if settings.lines != "auto":
        return (short if settings.lines == "wrapped" else None), f"text with {settings.lines} lines, as asked"
    open_pairs = [(before, after) for before, after in pairs if not _LINE_END.search(before)]
    n_lower = sum(1 for _, after in open_pairs if after[0].islower())
    n_long = sum(1 for before, _ in open_pairs if len(before) >= short)
    n_inner = sum(len(_INNER_END.findall(before)) for before, _ in pairs)
    limit = LOWER_CASE_SHARE_OF_WRAPPED * len(pairs)
    if n_lower > limit or (2 * n_long > len(pairs) and n_inner > limit):
        return short, "text with wrapped lines, joined to paragraphs (--lines separate if each ends a sentence)"
    return None, "text with lines that end with a sentence (--lines wrapped if sentences go on in the next line)"


def read_text(
    file: str, lines: Iterable[Line], tokenised: bool, short: int | None, documents: Iterator[int]
) -> Iterator[Located]:
    """Documents are what blank lines part."""
    document: int | None = None
    number = 0
    for unit in _units(lines, short):
        if unit is None:
            document = None
            continue
        if document is None:
            document, number = next(documents), 0
        text = unit[0].text if len(unit) == 1 else "\n".join(line.text for line in unit)
        for start, sentence in sentences_of(text, tokenised):
            line = unit[0].number + text.count("\n", 0, start)
            place = Place(file, document, None, line, number, unit[0].start + start)
            yield Located(place, sentence)
            number += 1


def _units(lines: Iterable[Line], short: int | None) -> Iterator[list[Line] | None]:
    """Lines that belong together, split into sentences as one text; None for each blank line."""
    held: list[Line] = []
    characters = 0
    for line in lines:
        is_blank = line.is_bad or not line.text.strip()
        if held and (is_blank or short is None or not _joins(held[-1].text, line.text, short, characters)):
            yield held
            held, characters = [], 0
        if is_blank:
            yield None
        else:
            held.append(line)
            characters += len(line.text)
    if held:
        yield held


def _joins(before: str, after: str, short: int, characters: int) -> bool:
    """Whether a wrapped text goes on in the next line: not behind a heading, before a list's item or beyond a limit."""
    if characters > MAX_UNIT_CHARACTERS or _BULLET.match(after):
        return False
    return len(before.strip()) >= short or after.lstrip()[:1].islower()


def text_units(text: str) -> Iterator[tuple[int, str]]:
    """A text in memory as (start, part): parts that are split into sentences each by itself."""
    if "\n" not in text:
        yield 0, text
        return
    starts = chain([0], (match.end() for match in re.finditer("\n", text)))
    lines = [Line(i, start, line) for i, (start, line) in enumerate(zip(starts, text.split("\n"), strict=True), 1)]
    short, _ = choose_lines(lines, InputSettings())
    for unit in _units(lines, short):
        if unit is not None:
            yield unit[0].start, "\n".join(line.text for line in unit)


def encodable(text: str) -> str:
    """Half of a surrogate pair, which a string can hold and UTF-8 cannot, becomes a question mark: lengths stay."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def sentences_of_text(text: str, tokenised: bool = False) -> Iterator[tuple[int, Sentence]]:
    """(first character, sentence) for each sentence of a text that may have several lines and paragraphs."""
    if tokenised:
        start = 0
        for line in text.split("\n"):
            yield from ((start + offset, sentence) for offset, sentence in sentences_of(line, tokenised=True))
            start += len(line) + 1
        return
    for start, part in text_units(text):
        yield from ((start + offset, sentence) for offset, sentence in sentences_of(part))


def sentences_of(text: str, tokenised: bool = False) -> Iterator[tuple[int, Sentence]]:
    """(first character, sentence) for each sentence of one paragraph or line."""
    if tokenised:
        given = SpaceSplitter().words_with_offsets(text)
        sentences: Iterable[Sequence[Word]] = cut_words(given) if given else []
    else:
        sentences = split_sentences(text)
    for words in sentences:
        start, end = words[0].start, words[-1].end
        spans = tuple([(word.start - start, word.end - start) for word in words])
        yield start, Sentence(tuple([word.text for word in words]), text=text[start:end], char_spans=spans)
