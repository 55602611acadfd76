"""Where the texts of mentions stand in a sentence: in the words of a tokenised one, or in ordinary text."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice

from spe_dist.data.text.languages import AUTO
from spe_dist.data.text.words import choose_words, make_splitter
from spe_dist.extraction.annotations.settings import DEFAULTS, AnnotationSettings
from spe_dist.extraction.corpora.corpus import Span, single_spaced
from spe_dist.extraction.formats.node import Node
from spe_dist.extraction.formats.texts import is_unusual

SAMPLE_RECORDS = 1000
CUT = "mentions that cut a word (the whole words are taken)"
CUT_DROPPED = "mentions that cut a word, left out"


def ordinary_text(records: Iterable[Node], field: str, language: str = AUTO) -> tuple[bool, Iterator[Node]]:
    """Whether the texts of a file are still to be split into words, by its first records; and all records.

    Args:
        field: that of the text; a record with `tokens` says nothing.
        language: of the texts.
    """
    rest = iter(records)
    held = list(islice(rest, SAMPLE_RECORDS))
    texts = [record.value[field] for record in held if record.has(field) and not record.has("tokens")]
    return looks_ordinary([text for text in texts if isinstance(text, str)], language), chain(held, rest)


def looks_ordinary(texts: Sequence[str], language: str = AUTO) -> bool:
    """Whether texts are not tokenised, as `spe shards make` decides it."""
    return choose_words("auto", texts, language)[0] == "tokenizer"


class Words:
    """The words of a tokenised sentence.

    Attributes:
        words: of the sentence.
        is_unusual: whether a word is empty or holds white space.
    """

    def __init__(self, words: tuple[str, ...]) -> None:
        self.words = words
        self.is_unusual = is_unusual(words)
        self._positions: dict[str, list[int]] = defaultdict(list)
        for index, word in enumerate(words):
            self._positions[_first(word)].append(index)

    def occurrences(self, text: str) -> dict[int, int]:
        """Where a text stands as whole words: the end by the start, in order."""
        if self.is_unusual:
            return self._unusual_occurrences(text)
        words = tuple(text.split())
        size = len(words)
        starts = self._positions.get(words[0], ()) if words else ()
        return {start: start + size for start in starts if self.words[start : start + size] == words}

    def _unusual_occurrences(self, text: str) -> dict[int, int]:
        """The same, where words hold spaces or nothing: to the letter, else but for spaces."""
        spaced = single_spaced(text)
        starts = [*self._positions.get(_first(text), ())]
        if text != text.lstrip() and spaced:  # it may begin with words of nothing but spaces
            starts = sorted([*starts, *self._positions.get("", ())])
        found: dict[int, int] = {}
        for start in starts:
            for end in range(start + 1, len(self.words) + 1):
                joined = " ".join(self.words[start:end])
                given = single_spaced(joined)
                if joined == text:
                    found[start] = end
                elif given == spaced and self.words[start].strip():
                    found.setdefault(start, end)
                if not spaced.startswith(given) or (given == spaced and len(joined) >= len(text)):
                    break
        return found

    def numbered(self, start: int) -> int:
        """The word that a file means by a number."""
        return start

    def is_exactly(self, text: str, span: Span) -> bool:
        """Whether a text that is found at a span is there to the letter."""
        return not self.is_unusual or " ".join(self.words[slice(*span)]) == text


class TextWords(Words):
    """The words of ordinary text, as they are found in raw text everywhere.

    Attributes:
        text: without white space around it.
        char_spans: where each word is in it.
    """

    def __init__(self, text: str, notices: Counter[str], settings: AnnotationSettings = DEFAULTS) -> None:
        self.text = text.strip()
        found = make_splitter("tokenizer", settings.language).words_with_offsets(self.text)
        self.char_spans = tuple((word.start, word.end) for word in found)
        self.words, self.is_unusual = tuple(word.text for word in found), False
        self._notices = notices
        self._drops_cut = settings.cut_words == "drop"
        self._found: dict[str, dict[int, int]] = {}

    def occurrences(self, text: str) -> dict[int, int]:
        """Where a text stands as whole words; where it does nowhere, the words of which it takes a part.

        With cut_words="drop" a text that takes a part of a word stands nowhere.
        A part that goes on with a letter or digit is another word: "art" is not in "party".
        """
        if text not in self._found:
            self._found[text] = self._search(text.split())
        return self._found[text]

    def _search(self, words: Sequence[str]) -> dict[int, int]:
        whole: dict[int, int] = {}
        cut: dict[int, int] = {}
        pattern = r"\s+".join(map(re.escape, words))
        for match in re.finditer(pattern, self.text) if words else ():
            start, end = match.span()
            first = bisect_right(self.char_spans, start, key=lambda span: span[1])
            behind = bisect_left(self.char_spans, end, key=lambda span: span[0])
            if (self.char_spans[first][0], self.char_spans[behind - 1][1]) == (start, end):
                whole[first] = behind
            elif not (self._goes_on(start) or self._goes_on(end)):
                cut[first] = behind
        if not whole and cut:
            self._notices[CUT_DROPPED if self._drops_cut else CUT] += 1
        return whole or ({} if self._drops_cut else cut)

    def _goes_on(self, position: int) -> bool:
        """Whether letters or digits stand on both sides."""
        around = self.text[max(position - 1, 0) : position + 1]
        return len(around) == 2 and around.isalnum()

    def numbered(self, start: int) -> int:
        """The word that a file means by a number, which counts what stands between spaces; -1 where there is none."""
        if not 0 <= start < len(self.text):
            return -1
        stretch = next(islice(re.finditer(r"\S+", self.text), start, None), None)
        if stretch is None:
            return -1
        first = bisect_left(self.char_spans, stretch.end(), key=lambda span: span[0])
        return bisect_right(self.char_spans, stretch.start(), hi=first, key=lambda span: span[1])


def _first(text: str) -> str:
    """A text up to its first white space; empty where it is nothing else."""
    return next(iter(text.split(maxsplit=1)), "")
