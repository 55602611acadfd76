"""Whole runs with sharded queues beside one with whole queues; the setting and the ranks change where a run resumes."""

import pytest
from small_runs import PRETRAINING, ask_to_stop, command_line, comparable_rows

from spe_dist import pretrain
from spe_dist.cli.exits import STOPPED

SETTINGS = {**PRETRAINING, "steps": 8, "dropout": 0.0, "queue_keys": 50, "evaluate_sentences": 0, "log_every_steps": 1}


def train(argv, stop_after=None):
    if stop_after is not None:
        ask_to_stop(stop_after)
    return pretrain.main(argv)


@pytest.mark.distributed
@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "then"),
    [
        ((2, "sharded"), (1, "replicated")),
        pytest.param((1, "replicated"), (2, "sharded"), marks=pytest.mark.long),
        pytest.param((2, "sharded"), (4, "sharded"), marks=pytest.mark.long),
    ],
)
def test_a_run_goes_on_with_other_queues_and_ranks_as_if_nothing_had_been(
    run_ranks, demo_shards, tmp_path, first, then
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    given = {**SETTINGS, "shards": demo_shards}
    run_ranks(train, 1, command_line({**given, "output": whole}))
    argv, (ranks, queue), (ranks_then, queue_then) = command_line({**given, "output": parts}), first, then
    micro_batches = 16 // 4 // ranks
    assert run_ranks(train, ranks, [*argv, f"--queue={queue}"], 4 * micro_batches)[0] == STOPPED
    assert run_ranks(train, ranks_then, [*argv, f"--queue={queue_then}", "--resume=auto"]) == [0] * ranks_then
    expected, found = ([row for row in comparable_rows(run) if row["kind"] == "train"] for run in (whole, parts))
    assert [row["step"] for row in found] == [row["step"] for row in expected] == list(range(1, 9))
    for row, wanted in zip(found, expected, strict=True):
        for name in ("loss", "cspo_loss", "contrastive_top1", "negative_similarity", "embedding_spread"):
            if wanted[name] is not None:
                assert row[name] == pytest.approx(wanted[name], rel=1e-4, abs=1e-4), (row["step"], name)
        assert row["queue_fill"] == wanted["queue_fill"] == min(50, 16 * row["step"])
