"""A whole run in float16 whose first steps overflow: what is logged of them, and resuming in their middle."""

import itertools
import json

import pytest
import torch
from float16_cpu import allow_float16
from small_runs import PRETRAINING, ask_to_stop, command_line, comparable_rows

from spe_dist import pretrain
from spe_dist.cli.exits import STOPPED
from spe_dist.distributed import deepspeed_config
from spe_dist.distributed.checkpoint import find_checkpoint
from spe_dist.distributed.fragments.tensors import read_whole
from spe_dist.training.rates.schedule import Schedule

STEPS, BATCH = 12, PRETRAINING["global_batch_sentences"]
SETTINGS = {**PRETRAINING, "steps": STEPS, "warmup_steps": 4, "log_every_steps": 1, "precision": "float16"}
DEEPSPEED = {
    "zero_optimization": {"stage": 2},
    "fp16": {"enabled": "auto", "loss_scale": 0, "initial_scale_power": 22, "hysteresis": 1, "loss_scale_window": 1000},
}


def train(argv, stop_after=None):
    allow_float16()
    deepspeed_config.choose_precision = lambda *_: "float16"  # it refuses that on CPUs, for users
    if stop_after is not None:
        ask_to_stop(stop_after)
    return pretrain.main(argv)


@pytest.mark.distributed
def test_steps_that_overflow_move_nothing_and_a_run_resumes_among_them(run_ranks, demo_shards, tmp_path):
    (tmp_path / "zero2.json").write_text(json.dumps(DEEPSPEED))

    def arguments(name, *further):
        given = {**SETTINGS, "shards": demo_shards, "output": tmp_path / name, "deepspeed": tmp_path / "zero2.json"}
        return [*command_line(given), *further]

    assert run_ranks(train, 2, arguments("whole")) == [0, 0]
    rows = [row for row in comparable_rows(tmp_path / "whole") if row["kind"] == "train"]
    applied = [bool(row["applied"]) for row in rows]
    skips = list(itertools.accumulate(not one for one in applied))  # up to each step
    first = applied.index(True)
    assert first > 2 and skips[-1] < STEPS - 4
    assert [row["skipped_steps"] for row in rows] == skips
    assert [row["loss_scale"] for row in rows] == [2.0 ** (22 - skipped) for skipped in skips]
    assert [row["grad_norm"] is not None for row in rows] == applied  # infinite else
    schedule = Schedule(peak=3e-3, warmup_steps=4, total_steps=STEPS)
    updates = [0, *itertools.accumulate(applied)]  # before each step
    assert [row["learning_rate"] for row in rows] == [schedule.rate(number) for number in updates[:-1]]
    assert [row["queue_fill"] for row in rows] == [min(50, BATCH * number) for number in updates[1:]]

    looks = 2  # micro-batches of a rank in a step, after each of which it looks for a request to stop
    assert run_ranks(train, 2, arguments("parts"), looks * (first - 1)) == [STOPPED, 0]
    assert run_ranks(train, 2, arguments("parts", "--resume=auto")) == [0, 0]
    assert comparable_rows(tmp_path / "parts") == comparable_rows(tmp_path / "whole")
    whole, parts = (read_whole(find_checkpoint(tmp_path / name), "weights") for name in ("whole", "parts"))
    assert all(torch.equal(weight, parts[name]) for name, weight in whole.items())
