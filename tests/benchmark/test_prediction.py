"""The benchmark of prediction beside other processes."""

import json
import os
import time

import pytest

from spe_dist.benchmark.prediction import PASSIVE, Rate, Way, Work, busy_neighbours, measure, table, ways
from spe_dist.cli import benchmark
from spe_dist.errors import LaunchError


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.json"
    sentence = {"tokens": ["Ann", "lives", "in", "Rome"], "entities": [], "relations": []}
    path.write_text(json.dumps([sentence] * 20))
    return str(path)


def test_one_thread_has_nothing_to_compare_with():
    assert [way.name for way in ways(1)] == ["1 batches, a thread each", "1 batch, 1 thread"]
    assert [way.threads for way in ways(4)] == [4, 4, 4, 1]


@pytest.mark.long
def test_every_way_is_measured_with_every_number_of_neighbours(extractor_folder, corpus):
    before = dict(os.environ)
    compared = [Way("two", 2), Way("passive", 2, one_batch=True, environment=PASSIVE)]
    rates = measure(Work(str(extractor_folder), corpus, 10, False), compared, [0, 1], repeats=2)
    assert {key: len(found) for key, found in rates.items()} == {
        (name, n): 2 for name in ("two", "passive") for n in (0, 1)
    }
    for rate in (rate for found in rates.values() for rate in found):
        assert 0 < rate.sentences_per_s <= rate.unhindered_per_s and rate.sentences_per_cpu_s > 0
    assert dict(os.environ) == before


def test_the_table_holds_medians_and_shares_of_the_quiet_rate():
    alone = [Rate(10.0, 5.0, 30.0), Rate(100.0, 9.0, 110.0), Rate(20.0, 6.0, 40.0)]
    rates = {("a", 0): alone, ("a", 4): [Rate(5.0, 1.0, 200.0)]}
    lines = table(rates, [Way("a", 1)], quiet=0)
    assert lines[2].split() == ["a", "20.0/s", "100%", "5.0/s", "25%", "6.0", "110.0/s"]


def test_neighbours_are_busy_and_end_with_the_block():
    with busy_neighbours(2):
        began = os.times()
        time.sleep(0.2)
    ended = os.times()
    assert ended.children_user - began.children_user > 0.1


def test_a_process_that_ends_early_is_an_error(extractor_folder, capfd):
    with pytest.raises(LaunchError, match="the process that measures 'one' ended"):
        measure(Work(str(extractor_folder), "nowhere.json", 1, False), [Way("one", 1)], [0], 1)
    assert "nowhere.json" in capfd.readouterr().err


def test_the_command_prints_a_table(extractor_folder, corpus, capsys):
    arguments = ["prediction", "--model", str(extractor_folder), "--corpus", corpus, "--neighbours", "0"]
    assert benchmark.main([*arguments, "--repeats", "1", "--sentences", "5", "--threads", "2"]) == 0
    out = capsys.readouterr().out
    assert "2 batches, a thread each" in out and "1 batch, 2 threads, passive" in out and "cores, load" in out
    assert benchmark.main(["prediction", "--model", "none", "--corpus", corpus]) == 2
