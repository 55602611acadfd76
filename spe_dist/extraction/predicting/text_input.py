"""Users' own text as sentences to predict on, with the place of each: plain text, JSON lines, standard input.

Everything streams: no more than a paragraph (bounded) is held, whatever the size of the file.

Offsets are characters (Unicode code points). In plain text they count from the start of the whole file, as
`open(file, newline="", encoding="utf-8-sig").read()` gives it: line breaks as they are, without a byte order mark. In
JSON they count from the start of the record's text; where it has none but words, the text is these joined by spaces,
and sentences by line breaks. An article of Wikipedia is a document whose text is its lines without markup, joined by
line breaks, those of markup empty.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from spe_dist.data.text.formats.recognise import FormatChoice
from spe_dist.data.text.languages import AUTO, check_language
from spe_dist.data.text.lines import Line
from spe_dist.data.text.markup import Markup, markup_remover
from spe_dist.data.text.paragraphs import LinesChoice, joined, paragraphs, text_paragraphs
from spe_dist.data.text.sentences import cut_words, split_sentences
from spe_dist.data.text.words import SpaceSplitter, Word
from spe_dist.extraction.corpora.corpus import Sentence

_BEGINS = {"wikiextractor": re.compile(r'<doc id="([^"]*)"'), "wikitext": re.compile(r"\s*= [^=].* =\s*$()")}


@dataclass(frozen=True)
class InputSettings:
    """How inputs are read.

    Raises:
        ConfigError: the language is unknown.
    """

    format: FormatChoice = "auto"
    tokenised: bool = False  # one sentence a line, its words between spaces
    lines: LinesChoice = "auto"  # whether a sentence of plain text may go on in the next line
    text_field: str = "text"
    skip_bad: bool = False  # count lines that cannot be read instead of stopping
    language: str = AUTO  # of text that is not tokenised, for its words and sentence ends

    def __post_init__(self) -> None:
        check_language(self.language)


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


def read_text(
    file: str,
    lines: Iterable[Line],
    tokenised: bool,
    full_line: int | None,
    documents: Iterator[int],
    language: str = AUTO,
) -> Iterator[Located]:
    """The sentences of lines of plain text; documents are what blank lines separate.

    full_line: columns from which on a line is full and may go on in the next one, None where none does.
    """
    document: int | None = None
    number = 0
    for paragraph in paragraphs(lines, full_line):
        if paragraph is None:
            document = None
            continue
        if document is None:
            document, number = next(documents), 0
        for line, start, sentence in _located(paragraph, tokenised, language):
            yield Located(Place(file, document, None, line, number, start), sentence)
            number += 1


def _located(paragraph: Sequence[Line], tokenised: bool, language: str) -> Iterator[tuple[int, int, Sentence]]:
    """(number of the line in which it begins, first character, sentence) for each sentence of some lines."""
    starts = [line.start for line in paragraph]
    for offset, sentence in sentences_of(joined(paragraph), tokenised, language):
        start = starts[0] + offset
        yield paragraph[bisect_right(starts, start) - 1].number, start, sentence


def sentences_of_text(text: str, tokenised: bool = False, language: str = AUTO) -> Iterator[tuple[int, Sentence]]:
    """(first character, sentence) for each sentence of a text that may have several lines and paragraphs."""
    if tokenised:
        start = 0
        for line in text.split("\n"):
            yield from ((start + offset, sentence) for offset, sentence in sentences_of(line, tokenised=True))
            start += len(line) + 1
        return
    for start, part in text_paragraphs(text):
        yield from ((start + offset, sentence) for offset, sentence in sentences_of(part, language=language))


def sentences_of(text: str, tokenised: bool = False, language: str = AUTO) -> Iterator[tuple[int, Sentence]]:
    """(first character, sentence) for each sentence of one paragraph or line."""
    if tokenised:
        given = SpaceSplitter().words_with_offsets(text)
        sentences: Iterable[Sequence[Word]] = cut_words(given) if given else []
    else:
        sentences = split_sentences(text, language)
    for words in sentences:
        start, end = words[0].start, words[-1].end
        spans = tuple([(word.start - start, word.end - start) for word in words])
        yield start, Sentence(tuple([word.text for word in words]), text=text[start:end], char_spans=spans)


class _Article(NamedTuple):
    first_line: int
    id: str | None


def read_articles(
    file: str,
    lines: Iterable[Line],
    form: Markup,
    counts: Counter[str],
    documents: Iterator[int],
    language: str = AUTO,
) -> Iterator[Located]:
    """The sentences of articles. `counts` takes the lines of markup, and the words that WikiText has replaced."""
    begun = deque([_Article(0, None)])
    document: int | None = None
    number = 0
    for paragraph in paragraphs(_without_markup(lines, form, counts, begun), None):
        if paragraph is None:
            continue
        while len(begun) > 1 and begun[1].first_line <= paragraph[0].number:
            begun.popleft()
            document = None
        if document is None:
            number, document = 0, next(documents)
        for line, start, sentence in _located(paragraph, False, language):
            yield Located(Place(file, document, begun[0].id, line, number, start), sentence)
            number += 1


def _without_markup(
    lines: Iterable[Line], form: Markup, counts: Counter[str], begun: deque[_Article]
) -> Iterator[Line]:
    """Lines of text alone, their starts counted from that of their article, whose beginnings are added to `begun`."""
    remove = markup_remover(form, counts, counts)
    start = 0
    for line in lines:
        found = _BEGINS[form].match(line.text)
        if found:
            begun.append(_Article(line.number, found[1] or None))
            start = 0
        text = line.text.strip() if not line.is_bad else ""
        text = remove(text) or "" if text else ""
        yield Line(line.number, start, text, line.is_bad)
        start += len(text) + 1
