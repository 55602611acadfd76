"""Sentences of Wikipedia's articles in the forms of WikiExtractor and WikiText, without their markup.

An article is a document: its text is its lines without markup, joined by line breaks, those of markup empty; offsets
count from its start.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from spe_dist.data.text.languages import AUTO
from spe_dist.data.text.lines import Line
from spe_dist.data.text.markup import Markup, markup_remover
from spe_dist.data.text.paragraphs import joined, paragraphs
from spe_dist.extraction.predicting.text_input import Located, Place, sentences_of

_BEGINS = {"wikiextractor": re.compile(r'<doc id="([^"]*)"'), "wikitext": re.compile(r"\s*= [^=].* =\s*$()")}


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
            document, number = next(documents), 0
        starts = [line.start for line in paragraph]
        for offset, sentence in sentences_of(joined(paragraph), language=language):
            start = starts[0] + offset
            line = paragraph[bisect_right(starts, start) - 1].number
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
