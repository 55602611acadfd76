"""Arithmetic on rows of unequal length that lie one behind the other in a flat array."""

from __future__ import annotations

import numpy as np


def borders(sizes: np.ndarray) -> np.ndarray:
    """[0, s0, s0 + s1, ...], int64, one longer than `sizes`: row i is borders[i] .. borders[i + 1]."""
    result = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=result[1:])
    return result


def exclusive_cumsum(sizes: np.ndarray) -> np.ndarray:
    """What stands before each entry, along the last axis."""
    return np.cumsum(sizes, axis=-1) - sizes


def ranges(sizes: np.ndarray) -> np.ndarray:
    """0 .. s0 - 1, 0 .. s1 - 1, ... joined."""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - sizes, sizes)
