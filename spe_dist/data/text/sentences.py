"""From text to sentences of words, each with its place in the text.

The rule is that of spaCy's sentencizer: a sentence ends at every full stop that is a word of its own. Its borders are
corrected where they are wrong most often: behind abbreviations (`et al. (2019)`, `Fig. 3`), before words that go on in
lower case, and where a sentence ends with an abbreviation that keeps its full stop (`the U.S. He said`). Offsets count
characters as Python does: Unicode code points.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import TypeVar

from spe_dist.data.text.words import Word, spacy_splitter

Item = TypeVar("Item")

ALWAYS_GO_ON = frozenset("cf viz vs approx resp Lt Col Capt Sgt Cmdr Pvt Hon Messrs".split())
GO_ON_BEFORE_NUMBERS = frozenset(
    "al etal ca fig figs eq eqs sec secs tab ch chap vol vols no nos nr p pp ref refs art sect ed eds ver ex".split()
)
STARTERS = frozenset(
    "The A An In On At By For From With As If When While After Before Since Although However But And Then There This "
    "That These Those It Its He She They We You I His Her Their Our My Some Many Most Both Also Meanwhile".split()
)
TITLES = frozenset("Mr. Mrs. Ms. Dr. Prof. St. Gen. Gov. Sen. Rep. Rev. Adm. Bros. vs. e.g. i.e. E.g. I.e.".split())
UNFINISHED = frozenset(",;([")
OPENING = frozenset(('"', "'", "(", "[", "\u201c", "\u2018"))
MAX_MERGED_WORDS = 400
MAX_SENTENCE_WORDS = 2000  # more is a table or data without any full stop; cut, so that memory is bounded
MAX_GIVEN_WORDS = 20_000  # of a sentence that came split into words, for the same reason


def cut_words(words: Sequence[Item], most: int = MAX_GIVEN_WORDS) -> list[Sequence[Item]]:
    """Words in parts of at most `most`; a sentence without words stays one."""
    return [words[i : i + most] for i in range(0, len(words), most)] or [words]


def split_sentences(text: str) -> Iterator[Sequence[Word]]:
    """The sentences of a text that are not empty, in order, as words with their places in it."""
    for words in _sentences(text):
        yield from cut_words(words, MAX_SENTENCE_WORDS)


def _sentences(text: str) -> Iterator[list[Word]]:
    held: list[Word] = []
    parts = chain.from_iterable(map(_cut_behind_abbreviations, _sentences_by_rule(text)))
    for words in parts:
        if held and len(held) < MAX_MERGED_WORDS and _goes_on(held, words):
            held += words
            continue
        if held:
            yield held
        held = list(words)
    if held:
        yield held


def _sentences_by_rule(text: str) -> Iterator[list[Word]]:
    """The sentences that end at full stops and the like; text without any is cut, so that memory is bounded."""
    ends = _sentence_ends()
    held: list[Word] = []
    is_ended = False
    for word in spacy_splitter().iterate_words(text):
        if word.text in ends:
            is_ended = True
        elif (is_ended and not _is_punctuation(word.text)) or len(held) >= MAX_SENTENCE_WORDS:
            start = _before_opening(held, word)
            yield held[:start]
            held = held[start:]
            is_ended = False
        held.append(word)
    if held:
        yield held


@cache
def _sentence_ends() -> frozenset[str]:
    """What ends a sentence in any script."""
    from spacy.pipeline import Sentencizer

    return frozenset(Sentencizer.default_punct_chars)


def _is_punctuation(word: str) -> bool:
    return not word[0].isalnum() and all(unicodedata.category(letter).startswith("P") for letter in word)


def _before_opening(words: Sequence[Word], following: Word) -> int:
    """How many words belong to a sentence: not the opening quote of the following one."""
    opens = (
        len(words) >= 2
        and words[-1].text in OPENING
        and words[-1].end == following.start
        and words[-2].end < words[-1].start
    )
    return len(words) - 1 if opens else len(words)


def _goes_on(before: Sequence[Word], after: Sequence[Word]) -> bool:
    """Whether the sentencizer has cut inside a sentence."""
    first = after[0].text
    last = _last_before_full_stop(before)
    if last in ALWAYS_GO_ON or before[-1].text in UNFINISHED:
        return True
    if last is not None and last.lower() in GO_ON_BEFORE_NUMBERS and (first[0].isdigit() or first in ("(", "[")):
        return True
    is_cased = next((word.text[0].isupper() for word in before if word.text[0].isalpha()), False)
    return is_cased and _starts_in_lower_case(after)


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
