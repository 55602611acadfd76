"""Readers of shards, their manifest and their index."""

from __future__ import annotations

from pathlib import Path

from tests.faults.fuzz.damage import flipped, json_damage
from tests.faults.fuzz.engine import Reader
from tests.faults.fuzz.readers.files import copy_of, file_of


def read_shards(path: Path) -> None:
    from spe_dist.data.shards.store import ShardStore

    folder = path.parent
    store = ShardStore.open(str(folder))
    for index in range(min(len(store.block_sentences), 8)):
        store.block(index)
    store.check_files()


def verify_shards(path: Path) -> None:
    from spe_dist.data.shards.store import ShardStore

    str(ShardStore.open(str(path.parent)).verify())


def read_block(path: Path) -> None:
    from spe_dist.data.shards.blocks import Block

    Block.from_bytes(path.read_bytes()).problem(500, 200)


def shard_readers(shards: Path, old_shards: Path) -> list[Reader]:
    from spe_dist.data.shards.store import ShardStore

    block = ShardStore.open(str(shards)).block(4).to_bytes()
    return [
        Reader("manifest", json_damage, copy_of(shards, "manifest.json"), read_shards),
        Reader("manifest of before", json_damage, copy_of(old_shards, "manifest.json"), read_shards),
        Reader("index of blocks", flipped, copy_of(shards, "blocks.npy"), read_shards),
        Reader("shard", flipped, copy_of(shards, "train-00001.tar"), read_shards),
        Reader("shard, verified", flipped, copy_of(shards, "held_out-00000.tar"), verify_shards),
        Reader("block", flipped, file_of("block.npz", block), read_block),
    ]
