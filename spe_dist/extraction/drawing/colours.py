"""The hues of types: the same for the same types, far apart within a page."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

HUES = tuple(range(5, 360, 24))  # 15 hues, far enough apart to be told from their neighbours
STEP = 4  # neighbours in the order of probing are far apart; coprime to the number of hues
DISTANCES = (48, 24, 0)  # degrees between the hues of two types: the first that is still free


def colours_of(types: Iterable[str]) -> dict[str, int]:
    """A hue in degrees for each type: its own by its name, or the next that is far enough from those before it.

    The same types always have the same hues. Beyond 15 types hues repeat.
    """
    hues: dict[str, int] = {}
    for name in sorted(set(types)):
        start = zlib.crc32(name.encode()) % len(HUES)
        order = [HUES[(start + STEP * i) % len(HUES)] for i in range(len(HUES))]
        hues[name] = next(
            hue for apart in DISTANCES for hue in order if all(_distance(hue, h) >= apart for h in hues.values())
        )
    return hues


def _distance(one: int, other: int) -> int:
    return min((one - other) % 360, (other - one) % 360)
