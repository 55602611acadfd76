"""Ranks that read from a server with latency and a limited rate."""

from __future__ import annotations

import time
import urllib.request

import pytest

from spe_dist.benchmark.data.distant import Demand, Line, measure_waiting, served, traffic
from spe_dist.benchmark.data.made_up import write_shards
from spe_dist.benchmark.data.server import FileServer
from spe_dist.data.shards.store import ShardStore


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("made_up")
    write_shards(path, shards=4, blocks=2)
    return path


def test_made_up_shards_are_as_their_manifest_says(folder):
    assert ShardStore.open(str(folder)).verify().ok


def test_the_server_is_as_slow_as_it_is_asked_to_be_and_counts(folder):
    server = FileServer(folder, latency_s=0.1, bytes_per_s=200_000)
    server.start()
    began = time.monotonic()
    data = urllib.request.urlopen(f"{server.url}/train-00000.tar").read(50_000)
    seconds = time.monotonic() - began
    assert 0.1 + 0.2 < seconds < 5 and data == (folder / "train-00000.tar").read_bytes()[:50_000]
    server.stop()


@pytest.mark.parametrize(("has_ranges", "only_reads"), [(True, False), (False, False), (True, True)])
def test_ranks_share_what_is_fetched_and_read_each_byte_once(folder, tmp_path, has_ranges, only_reads):
    demand = Demand(2, 32, 20_000, 8_000 // 32, not has_ranges, only_reads)
    with served(folder, Line(0.005, 50e6, has_ranges)) as url:
        found = measure_waiting(url, tmp_path, demand)
        assert found.read_bytes <= traffic(url)
    assert found.used_bytes > 8 * 30_000 and 0.99 < found.read_bytes / found.used_bytes < 1.1
    assert found.sentences_per_s > 0 and found.first_step_s > 0 and found.longest_s >= 0


def test_any_number_of_steps_comes_to_an_end(folder, tmp_path):
    found = measure_waiting(str(folder), tmp_path, Demand(8, 8, 1e9, 1_000, only_reads=True))
    assert found.sentences_per_s > 0


@pytest.mark.long
@pytest.mark.parametrize("has_ranges", [True, False])
def test_nobody_waits_for_a_server_with_50_ms_and_20_mb_a_second_more_than_for_a_folder(tmp_path, has_ranges):
    (tmp_path / "shards").mkdir()
    write_shards(tmp_path / "shards", shards=8, blocks=32)
    demand = Demand(8, 256, 12_000, 1_000, by_shards=not has_ranges)
    local = measure_waiting(str(tmp_path / "shards"), tmp_path, demand)
    with served(tmp_path / "shards", Line(0.05, 20e6, has_ranges)) as url:
        distant = measure_waiting(url, tmp_path / "cache", demand)
    assert distant.waited_share < local.waited_share + 0.02
    assert distant.read_bytes < 1.1 * distant.used_bytes
