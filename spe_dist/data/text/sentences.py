"""From text to sentences of words, each with its place in the text: for shards, prediction and annotations.

The rule is that of spaCy's sentencizer: a sentence ends at every full stop, of any script, that is a word of its own.
Borders are corrected where they are wrong most often: behind abbreviations (`et al. (2019)`, `Fig. 3`), before words
that go on in lower case, and where a sentence ends with an abbreviation that keeps its full stop (`the U.S. He said`).
`borders` has what depends on the language. Offsets count characters as Python does: Unicode code points.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TypeVar

from spe_dist.data.text.borders import Borders, borders_of
from spe_dist.data.text.characters import without_line_breaks
from spe_dist.data.text.languages import AUTO, CHARACTER_LANGUAGES, language_of
from spe_dist.data.text.words import Word, tokenizer_of

Item = TypeVar("Item")

STARTERS = frozenset(
    "The A An In On At By For From With As If When While After Before Since Although However But And Then There This "
    "That These Those It Its He She They We You I His Her Their Our My Some Many Most Both Also Meanwhile".split()
)
TITLES = frozenset("Mr. Mrs. Ms. Dr. Prof. St. Gen. Gov. Sen. Rep. Rev. Adm. Bros. vs. e.g. i.e. E.g. I.e.".split())
MAX_MERGED_WORDS = 400
CLAUSES_WORDS = 40  # characters of Thai or Lao, about two clauses, from which on a space ends a sentence
MAX_SENTENCE_WORDS = 2000  # more is a table or data without any full stop; cut, so that memory is bounded
MAX_GIVEN_WORDS = 20_000  # of a sentence that came split into words, for the same reason


def cut_words(words: Sequence[Item], most: int = MAX_GIVEN_WORDS) -> list[Sequence[Item]]:
    """Words in parts of at most `most`; a sentence without words stays one."""
    return [words[i : i + most] for i in range(0, len(words), most)] or [words]


def split_sentences(text: str, language: str = AUTO) -> Iterator[Sequence[Word]]:
    """The sentences of a text that are not empty, in order, as words with their places in it.

    A line break is a space, but none beside characters of scripts that are written without spaces.

    Args:
        text: a paragraph or a line.
        language: a code of `languages.LANGUAGES`, or "auto": by the text's script.

    Raises:
        ConfigError: the language is unknown.
    """
    code = language_of(text, language)
    removed: list[tuple[int, int]] = []
    if code in CHARACTER_LANGUAGES:
        text, removed = without_line_breaks(text)
    for words in _sentences(text, code):
        yield from cut_words([_moved(word, removed) for word in words] if removed else words, MAX_SENTENCE_WORDS)


def _moved(word: Word, removed: Sequence[tuple[int, int]]) -> Word:
    """A word where it stands in the text before line breaks were removed (see `without_line_breaks`)."""
    before = bisect_right(removed, word.start, key=lambda found: found[0])
    n_removed = removed[before - 1][1] if before else 0
    return Word(word.text, word.start + n_removed, word.end + n_removed)


def _sentences(text: str, language: str) -> Iterator[list[Word]]:
    held: list[Word] = []
    tokenizer, borders = tokenizer_of(language), borders_of(language)
    parts: Iterable[Sequence[Word]] = _sentences_by_rule(tokenizer.iterate_words(text), borders)
    if borders.is_english:
        parts = chain.from_iterable(map(_cut_behind_abbreviations, parts))
    elif borders.ends_at_spaces:
        parts = chain.from_iterable(map(_cut_at_spaces, parts))
    for words in parts:
        if held and len(held) < MAX_MERGED_WORDS and _goes_on(held, words, borders):
            held += words
            continue
        if held:
            yield held
        held = list(words)
    if held:
        yield held


def _sentences_by_rule(words: Iterable[Word], borders: Borders) -> Iterator[list[Word]]:
    """The sentences that end at full stops and the like; text without any is cut, so that memory is bounded."""
    ends = borders.ends
    held: list[Word] = []
    is_ended = False
    for word in words:
        if word.text in ends:
            is_ended = True
        elif (is_ended and not _is_punctuation(word.text)) or len(held) >= MAX_SENTENCE_WORDS:
            start = borders.first_of_next(held, word)
            yield held[:start]
            held = held[start:]
            is_ended = False
        held.append(word)
    if held:
        yield held


def _is_punctuation(word: str) -> bool:
    return not word[0].isalnum() and all(unicodedata.category(letter).startswith("P") for letter in word)


def _goes_on(before: Sequence[Word], after: Sequence[Word], borders: Borders) -> bool:
    """Whether the sentencizer has cut inside a sentence."""
    last = _last_before_full_stop(before)
    if before[-1].text in borders.unfinished:
        return True
    if last is not None and borders.goes_on_behind(last, after[0].text):
        return True
    is_cased = next((word.text[0].isupper() for word in before if word.text[0].isalpha()), False)
    return is_cased and borders.has_case and _starts_in_lower_case(after)


def _last_before_full_stop(words: Sequence[Word]) -> str | None:
    """The word that the full stop at the end is attached to."""
    if len(words) < 2 or words[-1].text != "." or words[-2].end != words[-1].start:
        return None
    return words[-2].text


def _starts_in_lower_case(words: Iterable[Word]) -> bool:
    """Whether the first letter is lower case and stands in no name such as `iPhone`; a number settles it, too."""
    for word in words:
        if word.text[0].isdigit():
            return False
        if any(letter.isalpha() for letter in word.text):
            return word.text.islower()
    return False


def _cut_behind_abbreviations(words: Sequence[Word]) -> Iterator[Sequence[Word]]:
    """Cut where an abbreviation that holds its full stop is followed by a word that starts sentences."""
    start = 0
    for i in range(1, len(words) - 1):
        text = words[i].text
        is_abbreviation = text[-1] == "." and len(text) > 2 and text[0].isalpha() and text not in TITLES
        if is_abbreviation and words[i + 1].text in STARTERS and words[i].end < words[i + 1].start:
            yield words[start : i + 1]
            start = i + 1
    yield words[start:]


def _cut_at_spaces(words: Sequence[Word]) -> Iterator[Sequence[Word]]:
    """Cut at a space behind some clauses, where no mark ends sentences; not beside a number."""
    start = 0
    for i in range(1, len(words)):
        before, after = words[i - 1], words[i]
        is_space = before.end < after.start and before.text[0].isalpha() and after.text[0].isalpha()
        if is_space and i - start >= CLAUSES_WORDS:
            yield words[start:i]
            start = i
    yield words[start:]
