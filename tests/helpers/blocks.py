"""What tests of shards do to files, and how they compare what is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spe_dist.data.shards.store import ShardStore


def flip_byte(path: Path, position: int) -> None:
    """Damage a file by one bit."""
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


def same_blocks(store: ShardStore, other: ShardStore) -> bool:
    """Whether all blocks of two stores hold the same sentences under the same ids."""
    pairs = [(store.block(i), other.block(i)) for i in range(len(store.block_sentences))]
    return all(
        np.array_equal(a.piece_ids_T, b.piece_ids_T) and a.first_sentence_id == b.first_sentence_id for a, b in pairs
    )
