"""Words of scripts that are written without spaces: a character is a word.

BERT's own tokenizer cuts Chinese characters like that, and Japanese kanji, but leaves a run of kana, of Thai, Lao,
Khmer or Burmese letters whole, so that a clause would be one word and no entity inside it could be marked. Here each of
their letters is a word, too, with the vowel signs and tone marks that belong to it. Punctuation of these scripts is cut
mark by mark, as BERT does. All else in such a text (Latin words, numbers) is read by the rules of English.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_HAN = "\u3005-\u3007\u3100-\u312f\u31a0-\u31bf\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_KANA = "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9d"
_KANA_MARKS = "\u3099\u309a\uff9e\uff9f"
_VARIANTS = "\ufe00-\ufe0f\U000e0100-\U000e01ef"  # of the Han character before
_THAI = "\u0e01-\u0e30\u0e32\u0e3f-\u0e46"
_THAI_MARKS = "\u0e31\u0e33-\u0e3a\u0e47-\u0e4e"
_LAO = "\u0e81-\u0eb0\u0eb2\u0ebd-\u0ec6\u0edc-\u0edf"
_LAO_MARKS = "\u0eb1\u0eb3-\u0ebc\u0ec8-\u0ece"
_KHMER = "\u1780-\u17b3"
_KHMER_MARKS = "\u17b4-\u17d1\u17d3\u17dd"
_BURMESE = "\u1000-\u102a\u103f\u1050-\u1055\u105a-\u105d\u1061\u1065-\u1066\u106e-\u1070\u1075-\u1081\u108e"
_BURMESE_MARKS = (
    "\u102b-\u1038\u103a-\u103e\u1056-\u1059\u105e-\u1060\u1062-\u1064\u1067-\u106d\u1071-\u1074\u1082-\u108d"
)
_TIBETAN = "\u0f00\u0f40-\u0f6c\u0f88-\u0f8c"
_TIBETAN_MARKS = "\u0f18\u0f19\u0f35\u0f37\u0f39\u0f71-\u0f84\u0f86\u0f87\u0f8d-\u0fbc"

_CHARACTER = "|".join(
    (
        f"[{_HAN}][{_VARIANTS}]*",
        f"[{_KANA}][{_KANA_MARKS}]*",
        f"[{_THAI}][{_THAI_MARKS}]*",
        f"[{_LAO}][{_LAO_MARKS}]*",
        f"[{_KHMER}](?:\u17d2[{_KHMER}]|[{_KHMER_MARKS}])*",
        f"[{_BURMESE}](?:\u1039[{_BURMESE}]|[{_BURMESE_MARKS}])*",
        f"[{_TIBETAN}][{_TIBETAN_MARKS}]*",
    )
)
# Marks of these scripts, full-width forms of ASCII's, and the quotes and dashes that stand in such text without spaces.
_MARKS = (
    "\u3001-\u3003\u3008-\u3020\u3030\u303d\u30a0\u30fb\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
    "\u2014\u201a-\u201d\u2026\u00b7\u0e2f\u0e4f\u0e5a\u0e5b\u0eaf\u17d4-\u17da\u104a-\u104f\u0f01-\u0f17\u0f3a-\u0f3d"
)
_MARK = f"(?<![A-Za-z])[\u2018\u2019]|[\u2018\u2019](?![A-Za-z])|[{_MARKS}]"  # no apostrophe

PART = re.compile(f"({_CHARACTER}|{_MARK})")  # as a separator of what lies between, which is kept
CHARACTERS = re.compile(f"(?:{_CHARACTER})+")
_BASES = f"{_HAN}{_KANA}{_THAI}{_LAO}{_KHMER}{_BURMESE}{_TIBETAN}{_MARKS}"
_SIGNS = f"{_VARIANTS}{_KANA_MARKS}{_THAI_MARKS}{_LAO_MARKS}{_KHMER_MARKS}{_BURMESE_MARKS}{_TIBETAN_MARKS}"
_HIDDEN_WORDS = re.compile(
    f"[{_THAI}{_THAI_MARKS}{_LAO}{_LAO_MARKS}{_KHMER}{_KHMER_MARKS}\\u17d2{_BURMESE}{_BURMESE_MARKS}\\u1039]+"
)
# Line breaks beside them are no spaces. A sign that begins a line stays apart from what it belongs to.
_BREAK_BEHIND = re.compile(f"(?:{_CHARACTER}|[{_MARKS}])\\Z")  # a sign without a character is no part of a word
_LONGEST = 16  # of a character with its signs
_BREAK_BEFORE = re.compile(f"[{_BASES}]")
_NO_BREAK_BEFORE = re.compile(f"[{_SIGNS}]")
_SPACE = re.compile(r"\s+")


def without_line_breaks(text: str) -> tuple[str, list[tuple[int, int]]]:
    """A text of wrapped lines without the line breaks beside characters and marks of these scripts.

    Returns:
        The text, and for each place where something was removed (the character behind it in the new text, how many
        characters were removed up to there).
    """
    parts, removed = [], []
    end = position = 0
    for match in _SPACE.finditer(text):
        is_line_break = "\n" in match.group() or "\r" in match.group()
        if is_line_break and _is_inside(
            text[max(0, match.start() - _LONGEST) : match.start()], text[match.end() : match.end() + 1]
        ):
            parts.append(text[end : match.start()])
            position += len(parts[-1])
            end = match.end()
            removed.append((position, end - position))
    return "".join([*parts, text[end:]]), removed


def _is_inside(before: str, after: str) -> bool:
    """Whether no space belongs between what ends and what begins there: one of the two is of these scripts."""
    if not before or not after or _NO_BREAK_BEFORE.match(after):
        return False
    return bool(_BREAK_BEHIND.search(before) or _BREAK_BEFORE.match(after))


def count_longer(words: Iterable[str]) -> tuple[int, int]:
    """(words of several characters, words) among those that are nothing but characters of these scripts."""
    sizes = [len(PART.findall(word)) for word in words if not word.isascii() and CHARACTERS.fullmatch(word)]
    return sum(1 for size in sizes if size > 1), len(sizes)


def characters_and_rest(stretch: str) -> list[tuple[str, bool]]:
    """A stretch without space in parts: (a character or mark, True), and (what lies between them, False)."""
    return [(part, bool(number % 2)) for number, part in enumerate(PART.split(stretch)) if part]


def first_unit(text: str) -> tuple[str, bool]:
    """(what stands before the first place where a line could be broken, whether that place is hidden).

    It is hidden in scripts whose lines are broken between words, and whose words have no space between them.
    """
    stretch = text.split(maxsplit=1)[0]
    if CHARACTERS.search(stretch) is None:
        return stretch, False
    run = _HIDDEN_WORDS.match(stretch)
    return (run.group(), True) if run else (characters_and_rest(stretch)[0][0], False)
