"""What a process pays for an index of blocks."""

from __future__ import annotations

import pytest

from spe_dist.benchmark.data.made_up import write_index
from spe_dist.benchmark.data.opening import measure_opening
from spe_dist.data.shards.store import ShardStore


def test_a_made_up_index_opens_and_counts_its_blocks(tmp_path):
    write_index(tmp_path, 2_500)
    store = ShardStore.open(str(tmp_path))
    assert store.n_sentences == 2_500_000 and store.shard_blocks.tolist() == [1_000, 1_000, 500]
    assert store.block_of(1_500_007) == (1_500, 7)


def test_opening_is_measured_in_a_process_of_its_own(tmp_path):
    write_index(tmp_path, 20_000)
    found = measure_opening(tmp_path)
    assert 0 < found.open_s < 10 and found.pickle_bytes < 20_000 and found.open_mib < 20


@pytest.mark.long
def test_a_million_blocks_open_in_a_second_and_50_mib(tmp_path):
    write_index(tmp_path, 1_000_000)
    found = [measure_opening(tmp_path) for _ in range(3)]
    assert min(one.open_s for one in found) < 1 and min(one.reopen_s for one in found) < 1
    assert max(one.order_mib for one in found) < 50 and found[0].pickle_bytes < 1 << 20
