"""Random numbers as pure functions of (seed, epoch, sentence id, purpose, draw index).

A counter-based generator: every number is a hash (the mixing function of splitmix64) of what it is for. So a
sentence's corruption depends neither on the batch, block, rank or loader process that meets it nor on what was drawn
before, and resuming needs no generator state. The numbers do not change with the version of NumPy.

Legend of the shape suffixes: N sentences (or any other number of keys)
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

_GOLDEN = 0x9E3779B97F4A7C15
_MASK64 = 0xFFFFFFFFFFFFFFFF


class Purpose(IntEnum):
    """What a random number decides; numbers of different purposes are independent."""

    BLOCK_ORDER = 1
    SPAN_WIDTHS = 2
    SPAN_LENGTHS = 3
    PERMUTED_SPANS = 4
    ORDERS = 5
    TBO_WORDS = 6
    EVALUATION = 7
    TRAIN_SHARE = 8
    SENTENCE_ORDER = 9
    GOLD_ENTITIES = 10
    HEAD_WEIGHTS = 11
    DROPOUT = 12
    SHARD_ORDER = 13
    NEGATIVE_SPANS = 14
    MLM_CHOICE = 15
    MLM_REPLACEMENT = 16
    MLM_RANDOM_PIECE = 17


def _mix(state: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64, uint64 -> uint64, a bijection."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def _as_uint64(values: np.ndarray | int) -> np.ndarray:
    """Integers of any sign as a uint64 array of at least one dimension (arrays wrap in silence, scalars warn)."""
    if isinstance(values, (int, np.integer)):
        return np.array([int(values) & _MASK64], dtype=np.uint64)
    return np.asarray(values).astype(np.uint64)


def _absorb(state: np.ndarray, values: np.ndarray | int) -> np.ndarray:
    """A new state that depends on `state` and `values` (broadcast)."""
    return _mix(state + (_as_uint64(values) + np.uint64(1)) * np.uint64(_GOLDEN))


def derive_seed(seed: int, purpose: Purpose) -> int:
    """A seed for another use of the same generator, 0..2**63-1."""
    return int(_absorb(_mix(_as_uint64(seed)), int(purpose))[0] >> np.uint64(1))


def keys(seed: int, epochs_N: np.ndarray | int, ids_N: np.ndarray | int) -> np.ndarray:
    """uint64 keys_N of (seed, epoch, id), from which `draws` takes numbers."""
    return _absorb(_absorb(_mix(_as_uint64(seed)), epochs_N), ids_N)


def draws(keys_N: np.ndarray, purpose: Purpose, index: np.ndarray | int = 0) -> np.ndarray:
    """uint64 draws: 64 uniform bits for each key, purpose and draw index.

    `index` is broadcast against the keys: keys[:, None] and arange(5) give five draws a key.
    """
    return _absorb(_absorb(keys_N, int(purpose)), index)


def uniform(bits: np.ndarray) -> np.ndarray:
    """float64 in [0, 1) from 64 random bits."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def below(bits: np.ndarray, bounds: np.ndarray | int) -> np.ndarray:
    """int64 uniform over 0..bound-1 from 64 random bits; bounds up to 2**31 (bias under bound / 2**32)."""
    return ((bits >> np.uint64(32)) * np.asarray(bounds).astype(np.uint64) >> np.uint64(32)).astype(np.int64)
