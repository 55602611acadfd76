"""From a line of text to words: what stands between two spaces, or what spaCy's English tokenizer finds.

spaCy's tokenizer treats each stretch between two spaces by itself, so its result for a stretch is kept and used again:
the same words at many times the speed, and all the offsets follow from the words' lengths. A stretch of letters or of
digits, with or without a comma or full stop behind, is given to spaCy only if it is one of its exceptions (`cannot`,
`Mr.`): its other rules cut nothing else there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple, Protocol

from spe_dist.errors import ConfigError, DataError

WordsChoice = Literal["auto", "spaces", "tokenizer"]
CACHED_STRETCHES = 500_000  # about 150 MB
ATTACHED_LIMIT = 0.1  # share of attached punctuation marks above which text counts as raw
LONG_STRETCH_CHARACTERS = 256

_PLAIN = re.compile(r"(?:[A-Za-z]*[a-z]|[A-Za-z]+(?=,|$)|[0-9]+)[,.]?")
# spaCy's time grows with the square of a stretch's length where it is all punctuation: no word goes over these cuts.
_LONG_PARTS = re.compile(r"(?s)[\W_]{64}|.{1,1000}?(?=[\W_]{64}|\Z)|.{1000}")
_STRETCH = re.compile(r"\S+")
_ATTACHED = re.compile(r"(?<=\w)(?:[,;:!?]|\.(?=\s*$))(?=\s|$)")
_STANDALONE = re.compile(r"(?<!\S)[,;:!?.](?=\s|$)")


class Word(NamedTuple):
    """A word and where it stands in its text: text[start:end], in characters."""

    text: str
    start: int
    end: int


class Splitter(Protocol):
    """Splits text into words."""

    def words(self, text: str) -> list[str]: ...

    def words_with_offsets(self, text: str) -> list[Word]: ...


class SpaceSplitter:
    """Words are what stands between spaces: for text that is tokenised already."""

    def words(self, text: str) -> list[str]:
        return text.split()

    def words_with_offsets(self, text: str) -> list[Word]:
        return [Word(match.group(), match.start(), match.end()) for match in _STRETCH.finditer(text)]


class SpacySplitter:
    """Words of spaCy's blank English tokenizer, for raw text. Its words are parts of the text, none is altered."""

    def __init__(self) -> None:
        self._language: Any = None
        self._stretches: dict[str, tuple[str, ...]] = {}

    def words(self, text: str) -> list[str]:
        words: list[str] = []
        known = self._stretches
        for stretch in text.split():
            found = known.get(stretch)
            words += found if found is not None else self._split(stretch)
        return words

    def iterate_words(self, text: str) -> Iterator[Word]:
        """The same words, each with its place in the text, as they are asked for."""
        known = self._stretches
        for match in _STRETCH.finditer(text):
            stretch, start = match.group(), match.start()
            for word in known.get(stretch) or self._split(stretch):
                end = start + len(word)
                yield Word(word, start, end)
                start = end

    def words_with_offsets(self, text: str) -> list[Word]:
        return list(self.iterate_words(text))

    def _split(self, stretch: str) -> tuple[str, ...]:
        if len(self._stretches) >= CACHED_STRETCHES:
            self._stretches.clear()
            self._language = None  # spaCy keeps every string it has met
        language = self._spacy()
        if _PLAIN.fullmatch(stretch):
            core = stretch.rstrip(",.")
            exceptions = language.tokenizer.rules
            if stretch not in exceptions and core not in exceptions:
                plain = (stretch,) if core == stretch else (core, stretch[-1])
                self._stretches[stretch] = plain
                return plain
        parts = _LONG_PARTS.findall(stretch) if len(stretch) > LONG_STRETCH_CHARACTERS else [stretch]
        found = tuple(token.text for part in parts for token in language.tokenizer(part))
        if len(stretch) < 64:
            self._stretches[stretch] = found
        return found

    def _spacy(self) -> Any:
        if self._language is None:
            import spacy

            self._language = spacy.blank("en")
        return self._language


@cache
def spacy_splitter() -> SpacySplitter:
    """This process's one tokenizer, so that what it has learned is used again."""
    return SpacySplitter()


def make_splitter(words: Literal["spaces", "tokenizer"]) -> Splitter:
    if words not in ("spaces", "tokenizer"):
        raise ConfigError(f"words={words!r} is unknown; choose 'auto', 'spaces' or 'tokenizer'")
    return SpaceSplitter() if words == "spaces" else spacy_splitter()


@dataclass(frozen=True)
class Punctuation:
    """How punctuation stands in a sample: at the end of a word (`word,`) or by itself (`word ,`)."""

    attached: int
    standalone: int

    @property
    def attached_share(self) -> float:
        return self.attached / max(1, self.attached + self.standalone)

    @property
    def is_raw(self) -> bool:
        return self.attached_share > ATTACHED_LIMIT

    def __str__(self) -> str:
        marks = self.attached + self.standalone
        return f"{self.attached_share:.1%} of {marks:,} punctuation marks in a sample are attached to a word"


def measure_punctuation(lines: Iterable[str]) -> Punctuation:
    """Count commas and other marks behind words; a full stop counts at the end of a line only (`U.S.` has its own)."""
    attached = standalone = 0
    for line in lines:
        attached += len(_ATTACHED.findall(line))
        standalone += len(_STANDALONE.findall(line))
    return Punctuation(attached, standalone)


def choose_words(words: WordsChoice, sample: Sequence[str]) -> tuple[Literal["spaces", "tokenizer"], str]:
    """(the choice, the reason in words).

    Raises:
        DataError: `spaces` was asked for text that is not tokenised.
    """
    punctuation = measure_punctuation(sample)
    if words == "auto":
        return ("tokenizer" if punctuation.is_raw else "spaces"), str(punctuation)
    if words == "spaces" and punctuation.is_raw:
        raise DataError(
            f"words='spaces' does not fit this text: {punctuation}, so it is not tokenised and the model would learn "
            "to predict commas; use words='tokenizer' (or 'auto'), or tokenise the text first"
        )
    make_splitter(words)
    return words, f"as asked; {punctuation}"
