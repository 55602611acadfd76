"""From a line of text to words: what stands between two spaces, or what the tokenizer of its language finds.

spaCy's tokenizers treat each stretch between two spaces by itself, so their result for a stretch is kept and used
again: the same words at many times the speed, and all the offsets follow from the words' lengths. An English stretch of
letters or of digits, with or without a comma or full stop behind, is given to spaCy only if it is one of its exceptions
(`cannot`, `Mr.`): its other rules cut nothing else there. In scripts without spaces characters are words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple, Protocol

from spe_dist.data.text.characters import CHARACTERS, characters_and_rest
from spe_dist.data.text.languages import (
    AUTO,
    CHARACTER_LANGUAGES,
    ENGLISH,
    ORDINAL_DIGITS,
    ORDINAL_LANGUAGES,
    check_language,
    language_of,
)
from spe_dist.errors import ConfigError, DataError

WordsChoice = Literal["auto", "spaces", "tokenizer"]
CACHED_STRETCHES = 500_000  # about 150 MB
ATTACHED_LIMIT = 0.1  # share of attached punctuation marks above which text counts as raw
LONG_STRETCH_CHARACTERS = 256

_PLAIN = re.compile(r"(?:[A-Za-z]*[a-z]|[A-Za-z]+(?=,|$)|[0-9]+)[,.]?")
# spaCy's time grows with the square of a stretch's length where it is all punctuation: no word goes over these cuts.
_LONG_PARTS = re.compile(r"(?s)[\W_]{64}|.{1,1000}?(?=[\W_]{64}|\Z)|.{1000}")
_STRETCH = re.compile(r"\S+")
# Marks that no word of any language holds: many texts have no space behind them.
_MARKS_WITHOUT_SPACE = re.compile(
    "([\u0589\u060c\u061b\u061f\u06d4\u0964\u0965\u1361-\u1368\u3001\u3002\uff01\uff08\uff09\uff0c\uff1a\uff1b\uff1f])"
)
_ATTACHED = re.compile(r"(?<=\w)(?:[,;:!?]|\.(?=\s*$))(?=\s|$)")
_STANDALONE = re.compile(r"(?<!\S)[,;:!?.](?=\s|$)")
_OTHER_MARKS = "\u0589\u060c\u061b\u061f\u06d4\u0964\u0965\u1362-\u1368\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f\uff61"
# Vowel signs are no word characters to Python, but end words.
_SIGNS = "\u0591-\u06ff\u0900-\u0dff\u0e31-\u0e4e\u0eb1-\u0ecd\u102b-\u109d\u17b4-\u17dd"
_OTHER_ATTACHED = re.compile(rf"(?<=\S)[{_OTHER_MARKS}]|(?<=[{_SIGNS}])(?<!\w)(?:[,;:!?]|\.(?=\s*$))(?=\s|$)")
_OTHER_STANDALONE = re.compile(rf"(?<!\S)[{_OTHER_MARKS}](?=\s|$)")
LONG_RUN_CHARACTERS = 6  # words of scripts without spaces are shorter on average


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
    """Words of spaCy's blank tokenizer of a language, for raw text. They are parts of the text, none is altered."""

    def __init__(self, language: str = ENGLISH) -> None:
        self.language = language
        self._pipeline: Any = None
        self._stretches: dict[str, tuple[str, ...]] = {}

    def words(self, text: str) -> list[str]:
        words: list[str] = []
        known = self._stretches
        for stretch in text.split():
            found = known.get(stretch)
            words += found if found is not None else self.split(stretch)
        return words

    def iterate_words(self, text: str) -> Iterator[Word]:
        """The same words, each with its place in the text, as they are asked for."""
        known = self._stretches
        for match in _STRETCH.finditer(text):
            stretch, start = match.group(), match.start()
            for word in known.get(stretch) or self.split(stretch):
                end = start + len(word)
                yield Word(word, start, end)
                start = end

    def words_with_offsets(self, text: str) -> list[Word]:
        return list(self.iterate_words(text))

    def split(self, stretch: str) -> tuple[str, ...]:
        """The words of a stretch without space."""
        if len(self._stretches) >= CACHED_STRETCHES:
            self._stretches.clear()
            self._pipeline = None  # spaCy keeps every string it has met
        found = self._split(stretch)
        if len(stretch) < 64:
            self._stretches[stretch] = found
        return found

    def _split(self, stretch: str) -> tuple[str, ...]:
        tokenizer = self._tokenizer()
        if self.language == ENGLISH and _PLAIN.fullmatch(stretch):
            core = stretch.rstrip(",.")
            exceptions = tokenizer.rules
            if stretch not in exceptions and core not in exceptions:
                return (stretch,) if core == stretch else (core, stretch[-1])
        parts = _LONG_PARTS.findall(stretch) if len(stretch) > LONG_STRETCH_CHARACTERS else [stretch]
        if self.language == ENGLISH:
            return tuple(token.text for part in parts for token in tokenizer(part))
        parts = [piece for part in parts for piece in _MARKS_WITHOUT_SPACE.split(part) if piece]
        return tuple(word for part in parts for token in tokenizer(part) for word in self._without_stop(token.text))

    def _without_stop(self, word: str) -> tuple[str, ...]:
        """A word or number and its full stop, which spaCy keeps together in some languages and scripts."""
        before = word[:-1]
        if word[-1] != "." or len(before) <= ORDINAL_DIGITS or "." in before or word in self._tokenizer().rules:
            is_cut = word[-1] == "." and before.isdigit() and self.language not in ORDINAL_LANGUAGES
        else:
            is_cut = before.isdigit() or not (before[0].isascii() or before[-1].isupper())
        return (before, ".") if is_cut else (word,)

    def _tokenizer(self) -> Any:
        if self._pipeline is None:
            import spacy

            by_rules = {"nlp": {"tokenizer": {"@tokenizers": "spacy.Tokenizer.v1"}}}
            self._pipeline = spacy.blank(self.language, config=by_rules)
        return self._pipeline.tokenizer


class CharacterSplitter(SpacySplitter):
    """Words of scripts without spaces: their characters (`characters`); what stands between them is read as English."""

    def split(self, stretch: str) -> tuple[str, ...]:
        """The words of a stretch without space; it is not kept, since few come again."""
        english = tokenizer_of(ENGLISH)
        words: list[str] = []
        for part, is_character in characters_and_rest(stretch):
            words += (part,) if is_character else english.split(part)
        return tuple(words)


class AutoSplitter:
    """Words of each text by the rules of its language, which its script tells."""

    def words(self, text: str) -> list[str]:
        return tokenizer_of(language_of(text)).words(text)

    def words_with_offsets(self, text: str) -> list[Word]:
        return tokenizer_of(language_of(text)).words_with_offsets(text)


@cache
def tokenizer_of(language: str) -> SpacySplitter:
    """This process's one tokenizer of a language, so that what it has learned is used again; the language is no "auto".

    Raises:
        ConfigError: there is no such language.
    """
    check_language(language)
    return CharacterSplitter(language) if language in CHARACTER_LANGUAGES else SpacySplitter(language)


def make_splitter(words: Literal["spaces", "tokenizer"], language: str = AUTO) -> Splitter:
    """What splits text into words as chosen.

    Raises:
        ConfigError: the choice or the language is unknown.
    """
    if words not in ("spaces", "tokenizer"):
        raise ConfigError(f"words={words!r} is unknown; choose 'auto', 'spaces' or 'tokenizer'")
    check_language(language)
    if words == "spaces":
        return SpaceSplitter()
    return AutoSplitter() if language == AUTO else tokenizer_of(language)


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
        if not line.isascii():
            attached += len(_OTHER_ATTACHED.findall(line))
            standalone += len(_OTHER_STANDALONE.findall(line))
    return Punctuation(attached, standalone)


def choose_words(
    words: WordsChoice, sample: Sequence[str], language: str = AUTO
) -> tuple[Literal["spaces", "tokenizer"], str]:
    """(the choice, the reason in words).

    Raises:
        ConfigError: the choice or the language is unknown.
        DataError: `spaces` was asked for text that is not tokenised.
    """
    punctuation = measure_punctuation(sample)
    if words == "auto":
        if not punctuation.is_raw and _is_unspaced(sample, language):
            return "tokenizer", "the script has no spaces between words"
        return ("tokenizer" if punctuation.is_raw else "spaces"), str(punctuation)
    if words == "spaces" and punctuation.is_raw:
        raise DataError(
            f"words='spaces' does not fit this text: {punctuation}, so it is not tokenised and the model would learn "
            "to predict commas; use words='tokenizer' (or 'auto'), or tokenise the text first"
        )
    make_splitter(words, language)
    return words, f"as asked; {punctuation}"


def _is_unspaced(sample: Sequence[str], language: str) -> bool:
    """Whether a sample is of a script without spaces between words, and not tokenised."""
    text = "\n".join(sample)
    if language_of(text, language) not in CHARACTER_LANGUAGES:
        return False
    runs = [len(run) for run in CHARACTERS.findall(text)]
    return sum(runs) > LONG_RUN_CHARACTERS * len(runs)
