"""Damage to files, drawn from a seed: bytes that flip and go missing, JSON values that cannot be.

Everything depends on the seed alone, so a number is all that repeats a fault.
"""

from __future__ import annotations

import bz2
import copy
import gzip
import json
import lzma
import random
from collections.abc import Callable
from typing import Any

Damage = Callable[[bytes, random.Random], bytes]
Change = Callable[[bytes], bytes]

HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 2**31, 2**63, -(2**63) - 1, 10**30, 1e30, 1e-30, 0.5, -0.0),
    *(
        "",
        " ",
        "a",
        "None",
        "true",
        "1e30",
        "\x00",
        "\n",
        "../x",
        "/etc/passwd",
        "$(touch X)",
        "é",
        "\ud800",
        "x" * 5000,
    ),
    *([], {}, [[]], [None], {"": None}, [0] * 1000, ["a", "a"], {"a": {"a": {"a": {}}}}),
)
RAW = (
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"1e999",
    b"[" * 5000,
    b'{"a":' * 500,
    b"9" * 5000,
    b"\xff\xfe",
    b"\x00",
    b"'",
    b",",
)


def flipped(data: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, removed, added, repeated or cut off."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        place = rng.randrange(len(changed) + 1)
        length = rng.choice((1, 1, 2, 4, 16, 256))
        kind = rng.randrange(8)
        if kind == 0:
            del changed[place:]
        elif kind == 1:
            del changed[place : place + length]
        elif kind == 2:
            changed[place:place] = bytes(rng.randrange(256) for _ in range(length))
        elif kind == 3:
            changed[place:place] = changed[place : place + length] * rng.choice((2, 50))
        elif kind == 4:
            changed[place:place] = rng.choice(RAW)
        elif changed:
            place = min(place, len(changed) - 1)
            changed[place] = rng.choice((0, 255, changed[place] ^ (1 << rng.randrange(8)), rng.randrange(256)))
    return bytes(changed)


def json_damage(data: bytes, rng: random.Random) -> bytes:
    """Values, keys and items of JSON (a document, or lines of it) replaced, removed, repeated; sometimes bytes, too."""
    if rng.random() < 0.25:
        return flipped(data, rng)
    text = data.decode()
    try:
        documents, joint = [json.loads(text)], ""
    except ValueError:
        documents, joint = [json.loads(line) for line in text.splitlines() if line.strip()], "\n"
    for _ in range(rng.choice((1, 1, 2, 4))):
        index = rng.randrange(len(documents))
        documents[index] = _changed(documents[index], rng)
    changed = joint.join(_dumped(document) for document in documents).encode("utf-8", "surrogatepass")
    return flipped(changed, rng) if rng.random() < 0.1 else changed


def lines_damage(data: bytes, rng: random.Random) -> bytes:
    """Lines of text removed, repeated, exchanged, indented or given characters of a markup; sometimes bytes, too."""
    if rng.random() < 0.3:
        return flipped(data, rng)
    lines = data.split(b"\n")
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(lines) + 1)
        odd = rng.choice(
            (b"&a [*a, *a]", b"? [a]", b"<<: {a: 1}", b"- - - -", b"a: b: c", b"x: !!python/name:os.system")
        )
        odd = rng.choice(
            (odd, b"\t", b"  ", b"a: 2001-99-99", b"a: !!int x", b"a: .inf", b"\xe2\x80\xa8", b"{", b"<doc>")
        )
        kind = rng.randrange(5)
        if kind == 0:
            del lines[place : place + 1]
        elif kind == 1:
            lines[place:place] = lines[place : place + 3]
        elif kind == 2:
            lines.insert(place, odd)
        elif lines and place < len(lines):
            column = rng.randrange(len(lines[place]) + 1)
            lines[place] = lines[place][:column] + odd + lines[place][column:]
    return b"\n".join(lines)


def compressed(pack: Change, unpack: Change, inner: Damage) -> Damage:
    """Damage to a compressed file, or to what stands in it."""

    def damage(data: bytes, rng: random.Random) -> bytes:
        return flipped(data, rng) if rng.random() < 0.6 else pack(inner(unpack(data), rng))

    return damage


def _zstd_packed(data: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor().compress(data)


def _zstd_unpacked(data: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdDecompressor().decompress(data)


PACKED: dict[str, tuple[Change, Change]] = {
    "gz": (gzip.compress, gzip.decompress),
    "xz": (lzma.compress, lzma.decompress),
    "bz2": (bz2.compress, bz2.decompress),
    "zst": (_zstd_packed, _zstd_unpacked),
}


def _dumped(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False)


def _changed(document: Any, rng: random.Random) -> Any:
    """The document with one value somewhere in it changed."""
    if not isinstance(document, dict | list) or not document or rng.random() < 0.15:
        return _replacement(document, rng)
    keys = list(document) if isinstance(document, dict) else range(len(document))
    key = rng.choice(keys)
    kind = rng.randrange(10)
    if kind == 0:
        del document[key]
    elif kind == 1 and isinstance(document, dict):
        document[rng.choice(("", "x", "\x00", str(key) + "s", "__class__"))] = document.pop(key)
    elif kind == 2 and isinstance(document, list):
        document.insert(key, document[key])
    elif kind == 3 and isinstance(document, list):
        rng.shuffle(document)
    else:
        document[key] = _changed(document[key], rng)
    return document


def _replacement(value: Any, rng: random.Random) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.5:
        return rng.choice((value + 1, value - 1, -value, value * 1000, value + 0.5))
    if isinstance(value, str) and rng.random() < 0.3:
        return value + rng.choice(("\n", " ", "x", "\x00", "/../x"))
    return copy.deepcopy(rng.choice(HOSTILE))  # it may be changed in turn
