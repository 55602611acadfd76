"""Shards of an earlier version get an index, and stay the same to a run."""

from __future__ import annotations

import pytest
from blocks import flip_byte
from old_shards import make_old

from spe_dist.data.shards.manifest import Manifest
from spe_dist.data.shards.store import ShardStore
from spe_dist.data.shards.upgrade import write_index
from spe_dist.errors import DataError


def test_an_index_is_what_making_the_shards_would_have_written(shards):
    made, files = Manifest.load(shards), {path: path.read_bytes() for path in shards.glob("*.*")}
    make_old(shards)
    named: list[str] = []
    assert write_index(shards, named.append) == made == Manifest.load(shards)
    assert {path: path.read_bytes() for path in shards.glob("*.*")} == files
    assert named == ["train-00000.tar", "train-00001.tar", "held_out-00000.tar"]
    assert ShardStore.open(str(shards)).verify().ok and Manifest.load(shards).hash() == made.hash()


def test_nothing_is_written_where_a_shard_is_damaged_or_missing_or_an_index_is_there(shards):
    with pytest.raises(DataError, match="has an index already"):
        write_index(shards)
    make_old(shards)
    flip_byte(shards / "held_out-00000.tar", 700)
    with pytest.raises(DataError, match=r"held_out-00000\.tar is missing or damaged"):
        write_index(shards)
    assert not (shards / "blocks.npy").exists() and Manifest.load(shards).index is None
