"""A request to stop that comes while held-out sentences are evaluated, on two ranks of which one hears of it."""

import pytest
from small_runs import PRETRAINING, ask_to_stop, command_line, comparable_rows

from spe_dist import pretrain
from spe_dist.cli.exits import STOPPED
from spe_dist.distributed.checkpoint import find_checkpoint
from spe_dist.training.metrics import read_rows

SETTINGS = {**PRETRAINING, "steps": 6, "evaluate_every_steps": 4, "evaluate_sentences": 48, "log_every_steps": 3}
LOOKS_A_STEP = 2  # a rank's micro-batches


def train(argv, stop_after=None):
    if stop_after is not None:
        ask_to_stop(stop_after)
    return pretrain.main(argv)


@pytest.mark.distributed
def test_the_evaluation_is_given_up_and_made_by_the_run_that_resumes(run_ranks, demo_shards, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    argv = command_line({**SETTINGS, "shards": demo_shards, "output": parts})
    assert run_ranks(train, 2, argv, 4 * LOOKS_A_STEP + 3) == [STOPPED, 0]
    assert [(row["kind"], row["step"]) for row in read_rows(parts / "metrics.jsonl")] == [
        ("train", step) for step in (1, 2, 3, 4)
    ]
    assert find_checkpoint(parts).name == "step_00000004"
    assert run_ranks(train, 2, [*argv, "--resume=auto"]) == [0, 0]
    assert run_ranks(train, 2, command_line({**SETTINGS, "shards": demo_shards, "output": whole})) == [0, 0]
    assert [row["step"] for row in read_rows(whole / "metrics.jsonl", "evaluation")] == [4, 6]
    assert comparable_rows(parts) == comparable_rows(whole)
