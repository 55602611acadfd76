"""Sorted runs: the sentences of one part on disk, in the order of their random keys.

An external shuffle in two passes: each part writes its sentences sorted by key; each shard then reads from every run
the keys of its range, which lie together. Memory holds one part or one shard, never the corpus.

Layout: uint32 bins [BINS + 1] (where each range of keys starts), uint64 keys [N], uint32 ends [N] (of the texts, in
bytes), the texts in UTF-8.

Legend of the shape suffixes: N sentences
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from spe_dist.utils.files import write_atomically

BIN_BITS = 12
BINS = 1 << BIN_BITS  # ranges of keys, the finest cut of the corpus into shards
_HEAD_BYTES = 4 * (BINS + 1)


def write_run(path: Path, keys_N: np.ndarray, texts: Sequence[str]) -> None:
    """Write the sentences in the order of their keys. The file appears when it is whole."""
    order = np.argsort(keys_N, kind="stable")
    keys_N = keys_N[order].astype("<u8")
    encoded = [texts[i].encode("utf-8") for i in order]
    bins = np.searchsorted(keys_N >> np.uint64(64 - BIN_BITS), np.arange(BINS + 1, dtype=np.uint64)).astype("<u4")
    ends_N = np.cumsum([len(text) for text in encoded], dtype=np.int64).astype("<u4")
    write_atomically(path, b"".join([bins.tobytes(), keys_N.tobytes(), ends_N.tobytes(), *encoded]))


def bin_sizes(path: Path) -> np.ndarray:
    """int64 [BINS]: sentences in each range of keys."""
    return np.diff(np.fromfile(path, "<u4", BINS + 1).astype(np.int64))


def read_run(path: Path, first_bin: int, end_bin: int) -> tuple[np.ndarray, list[str]]:
    """(keys_N, texts) of the bins first_bin..end_bin-1, in the order of their keys."""
    with open(path, "rb") as file:
        bins = np.frombuffer(file.read(_HEAD_BYTES), "<u4").astype(np.int64)
        total, first, end = int(bins[-1]), int(bins[first_bin]), int(bins[end_bin])
        if first == end:
            return np.zeros(0, np.uint64), []
        file.seek(_HEAD_BYTES + 8 * first)
        keys_N = np.frombuffer(file.read(8 * (end - first)), "<u8")
        before = min(first, 1)  # one end more than sentences, where there is one, tells where the first text starts
        file.seek(_HEAD_BYTES + 8 * total + 4 * (first - before))
        borders = np.frombuffer(file.read(4 * (end - first + before)), "<u4").astype(np.int64).tolist()
        borders = borders if before else [0, *borders]
        file.seek(_HEAD_BYTES + 12 * total + borders[0])
        data = file.read(borders[-1] - borders[0])
    start = borders[0]
    return keys_N, [data[a - start : b - start].decode("utf-8") for a, b in pairwise(borders)]
