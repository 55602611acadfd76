"""What is checked before the parts of a pre-training run are put together."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from spe_dist.data.batches.order import Order
from spe_dist.errors import ConfigError
from spe_dist.pretraining.build import check_cache


def store(shards: int, ranges: bool = False, local: bool = False) -> SimpleNamespace:
    """As many shards of one GiB as are given."""
    manifest = SimpleNamespace(shards=lambda split: shards * [SimpleNamespace(bytes=2**30)])
    return SimpleNamespace(is_local=local, has_ranges=lambda: ranges, manifest=manifest, source="https://host/shards")


def order(by_shards: bool) -> Order:
    return Order(np.full(100, 10), 0, 4, 8, shard_blocks=np.full(50, 2) if by_shards else None)


def test_a_cache_that_would_lose_whole_shards_before_they_are_read_is_refused_with_the_remedy():
    with pytest.raises(ConfigError, match=r"cache_gib=20, .* all of them in turn: set order=shards, or cache_gib=50"):
        check_cache(store(50), order(False), 20.0)
    with pytest.raises(ConfigError, match=r"cache_gib=7, but 4 streams read .* set cache_gib=8, or fewer streams"):
        check_cache(store(50), order(True), 7.0)


def test_a_cache_that_is_large_enough_or_not_needed_is_taken():
    check_cache(store(50), order(True), 8.0)
    check_cache(store(50), order(False), 50.0)
    check_cache(store(3), order(True), 3.0)
    check_cache(store(50, ranges=True), order(False), 0.1)
    check_cache(store(50, local=True), order(False), 0.1)
