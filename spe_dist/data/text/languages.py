"""Languages of text: which there are, and which one a text is in by its script.

`auto` looks at each text by itself (a paragraph, or a line that is a sentence), so that the same text gives the same
words wherever it is read. Latin letters are read by the rules of English; other languages in them have to be named.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable

from spe_dist.errors import ConfigError

AUTO = "auto"
ENGLISH = "en"

# Written without spaces between words, or with spaces between clauses: words are characters.
CHARACTER_LANGUAGES = frozenset(("zh", "ja", "th", "lo", "km", "my", "bo"))
# spaCy's tokenizers that need no further package (Korean, Vietnamese: by its rules, not by a segmenter).
SPACY_LANGUAGES = frozenset(
    "af am ar az bg bn ca cs da de dsb el en es et eu fa fi fo fr ga grc gu he hi hr hsb ht hu hy id is it kmr kn ko "
    "ky la lb lg lij lt lv mk ml mr ms nb ne nl nn pl pt ro ru sa si sk sl sq sr sv ta te ti tl tn tr tt uk ur vi xx "
    "yo".split()
)
# Where an ordinal number is written with a full stop (`3. Mai`).
ORDINAL_LANGUAGES = frozenset("cs da de dsb et fi hr hsb hu is lb lv nb nn pl sk sl sr tr".split())
ORDINAL_DIGITS = 2  # longer numbers are years and amounts, whose full stop ends a sentence
LANGUAGES = tuple(sorted(CHARACTER_LANGUAGES | SPACY_LANGUAGES))

# (first code point, last, language that the script stands for, how many Latin letters a letter counts for)
_SCRIPTS = (
    (0x0041, 0x024F, ENGLISH, 1),
    (0x0370, 0x03FF, "el", 1),
    (0x0400, 0x052F, "ru", 1),
    (0x0530, 0x058F, "hy", 1),
    (0x0590, 0x05FF, "he", 1),
    (0x0600, 0x06FF, "ar", 1),
    (0x0750, 0x077F, "ar", 1),
    (0x0900, 0x097F, "hi", 1),
    (0x0980, 0x09FF, "bn", 1),
    (0x0A80, 0x0AFF, "gu", 1),
    (0x0B80, 0x0BFF, "ta", 1),
    (0x0C00, 0x0C7F, "te", 1),
    (0x0C80, 0x0CFF, "kn", 1),
    (0x0D00, 0x0D7F, "ml", 1),
    (0x0D80, 0x0DFF, "si", 1),
    (0x0E00, 0x0E7F, "th", 1),
    (0x0E80, 0x0EFF, "lo", 1),
    (0x0F00, 0x0FFF, "bo", 1),
    (0x1000, 0x109F, "my", 1),
    (0x10A0, 0x10FF, "xx", 1),  # Georgian
    (0x1100, 0x11FF, "ko", 2),
    (0x1200, 0x137F, "am", 2),
    (0x1780, 0x17FF, "km", 1),
    (0x1E00, 0x1EFF, ENGLISH, 1),
    (0x1F00, 0x1FFF, "el", 1),
    (0x3005, 0x3007, "zh", 3),
    (0x3040, 0x30FF, "ja", 2),
    (0x3100, 0x312F, "zh", 2),
    (0x31F0, 0x31FF, "ja", 2),
    (0x3400, 0x4DBF, "zh", 3),
    (0x4E00, 0x9FFF, "zh", 3),
    (0xAC00, 0xD7A3, "ko", 2),
    (0xF900, 0xFAFF, "zh", 3),
    (0xFB50, 0xFDFF, "ar", 1),
    (0xFE70, 0xFEFF, "ar", 1),
    (0xFF66, 0xFF9F, "ja", 2),
    (0x20000, 0x323AF, "zh", 3),
)
# A character that may be a letter of another script than Latin; without any, there is nothing to count.
_OTHER_LETTER = re.compile("[^\\x00-\\u036f\\u2000-\\u3004]")
_FIRST = [first for first, _, _, _ in _SCRIPTS]


def check_language(language: str) -> str:
    """The language as it was given.

    Raises:
        ConfigError: there is none of this code.
    """
    if language != AUTO and language not in LANGUAGES:
        raise ConfigError(
            f"language={language!r} is unknown; choose auto (by the script of the text), or one of "
            f"{', '.join(LANGUAGES)}; xx is for any language with spaces between words"
        )
    return language


def known_language(value: object) -> str:
    """The language that a file names, "auto" where it names none that there is."""
    return value if isinstance(value, str) and value in LANGUAGES else AUTO


def language_of(text: str, language: str = AUTO) -> str:
    """The code of the language whose rules a text is read by: the given one, or with "auto" that of most letters.

    Chinese and Japanese share letters and rules: "ja" where there is kana, else "zh".
    """
    if language != AUTO:
        return language
    if text.isascii() or _OTHER_LETTER.search(text) is None:
        return ENGLISH
    found: Counter[str] = Counter()
    for letter, count in Counter(text).items():
        script = _SCRIPTS[bisect_right(_FIRST, ord(letter)) - 1] if letter.isalpha() else None
        if script is not None and ord(letter) <= script[1]:
            found[script[2]] += count * script[3]
    if found["ja"]:
        found["ja"] += found.pop("zh", 0)
    most = max(found.values(), default=0)
    return ENGLISH if found[ENGLISH] == most else next(code for code in found if found[code] == most)


def describe_language(sample: Iterable[str], language: str = AUTO) -> str:
    """How texts are read, in words: the language as asked, or those that their script stands for."""
    if language != AUTO:
        return f"{language} (as asked)"
    found = Counter(language_of(text) for text in sample)
    total = max(1, found.total())
    shares = ", ".join(f"{code} {count / total:.0%}" for code, count in found.most_common(4) if count >= 0.005 * total)
    return f"auto (by the script of each text in a sample: {shares or 'no text'})"
