"""Whole runs of one rank at stage 0, at the DeepSpeed file's stage, and from one to the other."""

import contextlib
import io
import itertools

import pytest
from small_runs import PRETRAINING, ask_to_stop, command_line, comparable_rows, zero_stage

from spe_dist import pretrain
from spe_dist.cli.exits import STOPPED
from spe_dist.distributed.checkpoint import find_checkpoint, read_state
from spe_dist.training.metrics import read_rows

SETTINGS = {**PRETRAINING, "steps": 6, "evaluate_sentences": 48, "log_every_steps": 2, "dropout": 0.0}
STOP_AFTER = 12  # micro-batches, 4 a step


def train(argv, stop_after=None):
    """(status, what was printed and said of errors)."""
    if stop_after is not None:
        ask_to_stop(stop_after)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        status = pretrain.main(argv)
    return status, printed.getvalue()


@pytest.mark.distributed
def test_one_rank_trains_at_stage_0_as_at_the_files_stage_and_checkpoints_go_on_at_either(
    run_ranks, demo_shards, tmp_path
):
    def arguments(name, *further):
        given = command_line({**SETTINGS, "shards": demo_shards, "output": tmp_path / name})
        return [*given, zero_stage(tmp_path, 1), *further]

    [(status, printed)] = run_ranks(train, 1, arguments("own"))
    assert status == 0 and "ZeRO stage 0, float32" in printed and "stage 0 in place of 1" in printed
    [(status, printed)] = run_ranks(train, 1, arguments("kept", "--keep_zero_stage=true"))
    assert status == 0 and "ZeRO stage 1, float32" in printed and "in place of" not in printed
    stages = [read_state(find_checkpoint(tmp_path / name))["zero_stage"] for name in ("own", "kept")]
    assert stages == [0, 1]
    for row, kept in zip(comparable_rows(tmp_path / "own"), comparable_rows(tmp_path / "kept"), strict=True):
        assert row.pop("kind") == kept.pop("kind")
        for name, value in kept.items():
            assert row[name] == (None if value is None else pytest.approx(value, rel=1e-3, abs=1e-5)), name

    further = {"own": [], "kept": ["--keep_zero_stage=true"]}
    change = "resuming on 1 rank at stage {} from a checkpoint of 1 rank at stage {}"
    for (first, given), (last, then) in itertools.product(further.items(), repeat=2):
        name = f"{first} {last}"
        assert run_ranks(train, 1, arguments(name, *given), STOP_AFTER)[0][0] == STOPPED
        [(status, printed)] = run_ranks(train, 1, arguments(name, *then, "--resume=auto"))
        assert status == 0 and ("resuming on" in printed) == (first != last)
        if first == last:
            assert comparable_rows(tmp_path / name) == comparable_rows(tmp_path / first)
        else:
            assert change.format(*(0, 1) if last == "own" else (1, 0)) in printed
            losses = [
                [row["loss"] for row in read_rows(tmp_path / run / "metrics.jsonl", "train")] for run in (name, first)
            ]
            assert losses[0] == pytest.approx(losses[1], rel=1e-5)
