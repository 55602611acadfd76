"""`spe benchmark pretrain` from its options to its tables."""

import json
import os
import re
import subprocess
import sys

import pytest
from project import ROOT

from spe_dist.benchmark.pretraining.work import Block, Spent, Spread, join_ranks

SMALL = ["--size", "2x128", "--batch", "8", "--keys", "64", "--vocabulary", "200", "--seconds", "0", "--cpu"]


def run(*options):
    command = [sys.executable, "-m", "spe_dist", "benchmark", "pretrain", *SMALL, *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.distributed
def test_one_rank_two_ranks_and_the_plain_form_are_measured_in_turn(tmp_path):
    file = tmp_path / "figures.json"
    done = run("--ranks", "1,2", "--precision", "float32", "--stage", "2", "--rounds", "2", "--json", str(file))
    assert done.returncode == 0, done.stderr
    assert re.search(r"^1 rank, ZeRO stage 2, float32, \d+ threads each", done.stdout, re.MULTILINE)
    assert re.search(r"^backward +[\d.]+ +[\d.]+%", done.stdout, re.MULTILINE)
    found = json.loads(file.read_text())
    one, two, plain = found["contenders"]
    assert (one["ranks"], two["ranks"], plain["plain"]) == (1, 2, True)
    assert len(found["ratios"]) == 2
    for contender in (one, two, plain):
        assert [block["sentences"] for block in contender["blocks"]] == [8, 8]
        assert contender["facts"]["parameters"] == one["facts"]["parameters"]
        assert all(block["share"] > 0 and block["cpu_share"] > 0 for block in contender["blocks"])
        # Phases cover the steps.
        for block in contender["blocks"]:
            seconds = sum(part["seconds"] for part in block["phases"].values())
            assert seconds == pytest.approx(block["spent"]["seconds"], rel=0.2)
    # All train the same sentences.
    for left, right, third in zip(*(contender["blocks"] for contender in (one, two, plain)), strict=True):
        assert left["tokens"] == right["tokens"] == third["tokens"]
        assert left["flops"] == third["flops"] == pytest.approx(right["flops"], rel=0.01)  # embeddings of places twice
    assert two["counts"]["collectives"]["all-gather"][1] > 4 * one["facts"]["parameters"]


@pytest.mark.distributed
def test_real_sentences_and_other_settings(demo_shards):
    options = ["--shards", str(demo_shards), "--no-plain", "--rounds", "1", "--view_masks", "one"]
    done = run(*options, "--set", "cspo=false", "--set", "layers=1")
    assert done.returncode == 0, done.stderr
    assert f"sentences of {demo_shards}" in done.stdout and "plain, " not in done.stdout


@pytest.mark.gpu
def test_a_gpu_is_measured_with_its_launches_and_its_memory(tmp_path):
    file = tmp_path / "figures.json"
    command = [sys.executable, "-m", "spe_dist", "benchmark", "pretrain", *SMALL[:-1], "--json", str(file)]
    environment = {name: value for name, value in os.environ.items() if name != "DS_ACCELERATOR"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    ours, plain = json.loads(file.read_text())["contenders"]
    assert "launches" in done.stdout and ours["counts"]["launches"]["backward"] > 50
    for contender in (ours, plain):
        assert contender["facts"]["device"] != "CPU" and 0 < contender["counts"]["peak_memory_gib"] < 4
        for block in contender["blocks"]:
            seconds = sum(part["seconds"] for part in block["phases"].values())
            assert seconds == pytest.approx(block["spent"]["seconds"], rel=0.2)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--size", "7x7"], "unknown choice '7x7'"),
        (["--set", "layer=1"], "--set layer=1"),
        (["--precision", "float8"], "precision='float8'"),
        (["--batch", "9", "--ranks", "2"], "global_batch_sentences=9 is not divisible by 2 ranks"),
        (["--shards", "nowhere"], "nowhere"),
    ],
)
def test_what_is_wrong_is_one_line(options, message):
    done = run(*options)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_ranks_are_joined():
    def block(seconds, cpu_s):
        return Block(2, 10, 100, 1e9, Spent(seconds, cpu_s), {"query": Spent(seconds, cpu_s)}, 1e8, Spent(0.1, 0.2))

    joined = join_ranks([block(1.0, 2.0), block(3.0, 1.0)])
    assert (joined.steps, joined.sentences, joined.tokens, joined.flops) == (2, 20, 200, 2e9)
    assert joined.spent == Spent(3.0, 3.0) and joined.phases == {"query": Spent(2.0, 3.0)}
    assert joined.share == pytest.approx((2e9 / 3) / (2e8 / 0.1))
    assert joined.cpu_share == pytest.approx((2e9 / 3) / (2e8 / 0.4))
    assert Spread.of([3.0, 1.0, 2.0, 10.0]) == Spread(2.5, 1.0, 10.0)
