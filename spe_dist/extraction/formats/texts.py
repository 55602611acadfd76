"""Words of formats that give a sentence as one string, with spaces between words."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any
from unicodedata import normalize

from spe_dist.extraction.formats.node import Node

OTHER_TOKENS = "sentences whose 'tokens' differ from 'sentText' ('tokens' are taken)"


def read_words(record: Node, notices: Counter[str]) -> tuple[str, ...]:
    """The words between single spaces of `sentText`, as the released code splits it; or the list `tokens`, if given."""
    text = record.child("sentText").string()
    words = split(text)
    if record.has("tokens"):
        tokens = record.child("tokens").words()
        notices[OTHER_TOKENS] += " ".join(tokens).split() != text.split()
        words = tokens
    return words


def split(text: str) -> tuple[str, ...]:
    """The words between single spaces; of two spaces one after the other an empty word."""
    stripped = text.strip()
    return tuple(map(sys.intern, stripped.split(" "))) if stripped else ()


def text_fields(words: Sequence[str]) -> dict[str, Any]:
    """`sentText`, and `tokens` where the words cannot be told from it (a word with a space, an empty word)."""
    text = " ".join(words)
    is_plain = split(text) == tuple(words) and not is_unusual(words)
    return {"sentText": text} if is_plain else {"sentText": text, "tokens": list(words)}


def is_unusual(words: Sequence[str]) -> bool:
    """Whether a word is empty or holds white space."""
    return tuple(" ".join(words).split()) != tuple(words)


def same_text(text: str, words: Sequence[str]) -> bool:
    """Whether a text and words are the same but for spaces, case and the form of their Unicode characters."""
    given, covered = ("".join(part.split()).casefold() for part in (text, "".join(words)))
    return given == covered or normalize("NFC", given) == normalize("NFC", covered)
