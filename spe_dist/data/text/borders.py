"""What ends a sentence, by language: marks, abbreviations that go on, and the marks that open the next sentence.

English keeps the rules that its sentences were always cut by; the others share one set of rules for all scripts, with
the abbreviations of some languages.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from spe_dist.data.text.languages import CHARACTER_LANGUAGES, ENGLISH, ORDINAL_DIGITS, ORDINAL_LANGUAGES
from spe_dist.data.text.words import Word

ALWAYS_GO_ON = frozenset("cf viz vs approx resp Lt Col Capt Sgt Cmdr Pvt Hon Messrs".split())
GO_ON_BEFORE_NUMBERS = frozenset(
    "al etal ca fig figs eq eqs sec secs tab ch chap vol vols no nos nr p pp ref refs art sect ed eds ver ex".split()
)
# Abbreviations that spaCy's tokenizers of the language do not keep together with their full stop.
_GO_ON = {
    "de": "Abb Abs Aufl Bd Kap Tab Hrsg geb gest Mio Mrd",
    "es": "pág págs núm cap art fig aprox",
    "fr": "art chap fig éd env",
    "hi": "डॉ श्री प्रो",
    "it": "pag pagg fig cap art",
    "pl": "rys tab str ul prof dr inż hab por",
    "pt": "pág págs fig cap art",
    "ru": "см ср рис табл гл стр ст п пп илл акад проф доц кв корп обл р-н ред изд прим напр",  # noqa: RUF001
    "uk": "див рис табл гл стор ст п пп акад проф вул обл ред вид напр",
}
# Alphabets without case in which one letter and a full stop abbreviate a word.
_LETTER_LANGUAGES = frozenset("ar fa he ur hi mr ne bn".split())
UNFINISHED = frozenset(",;([")
_UNFINISHED_ELSEWHERE = UNFINISHED | frozenset(
    "\u3001\uff0c\uff1b\uff1a\uff08\u3014\u3010\u300c\u300e\u300a\u060c\u061b"
)
OPENING = frozenset(('"', "'", "(", "[", "\u201c", "\u2018"))
_OPENING_ELSEWHERE = frozenset("\u00bf\u00a1")
_QUOTES = frozenset("\"'\u00ab\u00bb\u2018\u2019\u201a\u201c\u201d\u201e\u2039\u203a")
_ENDS_ELSEWHERE = frozenset(("\u2026", "\u2026\u2026", "..", "...", "....", "\u17d4", "\u17d5", "\u0f0d", "\u0f0e"))
_SPACE_ENDS = frozenset(("th", "lo"))  # no mark ends a sentence there, but a space


@dataclass(frozen=True)
class Borders:
    """The rules of one language.

    ends: words that end a sentence
    go_on: words (without their full stop) behind which a sentence goes on
    unfinished: words behind which it has not ended
    has_case: whether a sentence that begins with a capital may go on in lower case
    """

    language: str
    ends: frozenset[str]
    go_on: frozenset[str]
    unfinished: frozenset[str]
    has_case: bool

    @property
    def is_english(self) -> bool:
        return self.language == ENGLISH

    @property
    def ends_at_spaces(self) -> bool:
        return self.language in _SPACE_ENDS

    def goes_on_behind(self, last: str, first: str) -> bool:
        """Whether a sentence goes on behind the word `last` and its full stop, before the word `first`."""
        if last in self.go_on:
            return True
        if last.lower() in GO_ON_BEFORE_NUMBERS and (first[0].isdigit() or first in ("(", "[")):
            return True
        if self.language in ORDINAL_LANGUAGES and last.isdigit() and len(last) <= ORDINAL_DIGITS:
            return True
        return self.language in _LETTER_LANGUAGES and len(last) == 1 and last.isalpha()

    def first_of_next(self, words: Sequence[Word], following: Word) -> int:
        """How many words belong to a sentence: not the marks at its end that open the one of `following`."""
        if self.is_english:
            return len(words) - _opens_in_english(words, following)
        end = len(words)
        while end > 1 and self._opens(words[:end], words[end] if end < len(words) else following):
            end -= 1
        return end

    def _opens(self, words: Sequence[Word], following: Word) -> bool:
        mark, before = words[-1], words[-2]
        kind = unicodedata.category(mark.text[0])
        if mark.text in self.ends:
            return False
        is_attached = mark.end == following.start
        if before.end < mark.start:
            is_opening = kind in ("Ps", "Pi") or mark.text in _OPENING_ELSEWHERE
            return is_opening or (is_attached and mark.text in _QUOTES)
        if mark.text in ('"', "'"):  # no space on either side: it closes what was opened
            return is_attached and sum(word.text == mark.text for word in words[:-1]) % 2 == 0
        return is_attached and kind in ("Ps", "Pi")


def _opens_in_english(words: Sequence[Word], following: Word) -> bool:
    return (
        len(words) >= 2
        and words[-1].text in OPENING
        and words[-1].end == following.start
        and words[-2].end < words[-1].start
    )


@cache
def borders_of(language: str) -> Borders:
    """The rules of a language, which is no "auto"."""
    from spacy.pipeline import Sentencizer

    ends = frozenset(Sentencizer.default_punct_chars)
    if language == ENGLISH:
        return Borders(language, ends, ALWAYS_GO_ON, UNFINISHED, has_case=True)
    if language == "el":
        ends |= {";", "\u037e"}  # the Greek question mark
    return Borders(
        language,
        ends | _ENDS_ELSEWHERE,
        ALWAYS_GO_ON | frozenset(_GO_ON.get(language, "").split()),
        _UNFINISHED_ELSEWHERE - ends,
        has_case=language not in CHARACTER_LANGUAGES,
    )
