"""A run whose loss jumps goes back to a checkpoint by itself and leaves the steps that caused it out."""

import contextlib
import io
import json
import os
import threading
import time

import pytest
from small_runs import FINETUNING, PRETRAINING, ask_to_stop, command_line, comparable_rows, small_corpus, zero_stage

from spe_dist import finetune, pretrain
from spe_dist.cli.exits import STOPPED, UNSTABLE
from spe_dist.distributed.checkpoint import Checkpoints, find_checkpoint, read_state
from spe_dist.finetuning.step import FinetuneStep
from spe_dist.pretraining.step import TrainingStep
from spe_dist.training.metrics import read_rows

BLOW = 1e4  # times the rate of a step whose update makes the model useless


def blow_up(steps):
    """Have the updates of some steps, counted from 1, ruin the model; only in this process."""
    pretraining, finetuning = TrainingStep.__call__, FinetuneStep.__call__

    def of_pretraining(self, step, rate, batches, *rest):
        return pretraining(self, step, rate * (BLOW if step + 1 in steps else 1), batches, *rest)

    def of_finetuning(self, step, rates, *rest):
        return finetuning(self, step, [rate * (BLOW if step + 1 in steps else 1) for rate in rates], *rest)

    TrainingStep.__call__, FinetuneStep.__call__ = of_pretraining, of_finetuning


def save_slowly():
    """Have saves in the background take a second longer; only in this process."""
    save = Checkpoints.save

    def slowly(self, *arguments):
        if threading.current_thread() is not threading.main_thread():
            time.sleep(1.0)
        return save(self, *arguments)

    Checkpoints.save = slowly


def run(main, argv, steps=(), stop_after=None, slowly=False):
    blow_up(steps)
    if slowly:
        save_slowly()
    if stop_after is not None:
        ask_to_stop(stop_after)
    stream = io.StringIO()
    with contextlib.redirect_stderr(stream), contextlib.redirect_stdout(stream):
        status = main(argv)
    return status, stream.getvalue()


def failures(output):
    return [json.loads(line) for line in (output / "failures.jsonl").read_text().splitlines()]


def pretraining(shards, folder, name, **given):
    settings = {**PRETRAINING, "steps": 28, "checkpoint_every_steps": 6, "log_every_steps": 2, "evaluate_sentences": 0}
    settings |= {"shards": shards, "output": folder / name, "rollback_on_spike": 2.0, "warmup_steps": 1, **given}
    return [*command_line(settings), zero_stage(folder, 2)]


@pytest.mark.distributed
@pytest.mark.parametrize("ranks", [1, 2])
def test_pretraining_goes_back_and_trains_on_without_the_steps_that_caused_a_spike(
    run_ranks, demo_shards, tmp_path, ranks
):
    argv = pretraining(demo_shards, tmp_path, "run")
    results = run_ranks(run, ranks, pretrain.main, argv, {20})
    assert [status for status, _ in results] == [0] * ranks, results
    (row,) = failures(tmp_path / "run")
    assert row["kind"] == "spike" and row["step"] == 21 and row["action"] == "rolled back" and row["to_step"] == 18
    assert row["left_out_steps"] == [20, 21] and row["first_bad_parameter"] is None
    assert [len(ids) for ids in row["sentence_ids"]] == [16 // ranks] * ranks
    assert "roll-back 1 of at most 3" in results[0][1]
    assert "left out of training: 2 steps after roll-backs (20, 21)" in results[0][1]
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    kinds = {row["step"]: row["kind"] for row in rows if row["kind"] != "evaluation"}
    assert list(kinds) == list(range(1, 29))
    assert [step for step, kind in kinds.items() if kind == "left_out"] == [20, 21]
    state = read_state(find_checkpoint(tmp_path / "run"))
    assert (state["step"], state["applied_steps"], state["left_out"]["steps"]) == (28, 26, [20, 21])
    # as a run that is stopped and resumed after it went back
    if ranks == 1:
        parts = pretraining(demo_shards, tmp_path, "parts")
        assert run_ranks(run, 1, pretrain.main, parts, {20}, 22 * 4 + 2)[0][0] == STOPPED
        ((status, _),) = run_ranks(run, 1, pretrain.main, [*parts, "--resume=auto"], {20})
        assert status == 0 and comparable_rows(tmp_path / "parts") == comparable_rows(tmp_path / "run")


@pytest.mark.distributed
def test_a_checkpoint_that_is_still_being_written_is_what_a_run_goes_back_to(run_ranks, demo_shards, tmp_path):
    argv = pretraining(demo_shards, tmp_path, "run", steps=24, log_every_steps=1)
    results = run_ranks(run, 2, pretrain.main, argv, {19}, None, True)
    assert [status for status, _ in results] == [0, 0], results
    printed, (row,) = results[0][1], failures(tmp_path / "run")
    assert row["kind"] == "spike" and row["step"] == 20 and row["to_step"] == 18
    assert printed.index("saved step 18 in") < printed.index("roll-back 1 of at most 3")
    steps = [row["step"] for row in read_rows(tmp_path / "run" / "metrics.jsonl") if row["kind"] != "evaluation"]
    assert steps == list(range(1, 25))


def die(argv, steps, attempt):
    """End this process, as a kill does, when it begins to train a step for the second time."""
    train, seen = TrainingStep.__call__, set()

    def begun(self, step, *rest):
        if step + 1 == attempt and step in seen:
            os._exit(9)
        seen.add(step)
        return train(self, step, *rest)

    TrainingStep.__call__ = begun
    return run(pretrain.main, argv, steps)


@pytest.mark.distributed
def test_a_run_that_is_killed_after_it_went_back_does_not_take_the_checkpoint_that_it_gave_up(
    run_ranks, demo_shards, tmp_path
):
    (tmp_path / "ids").write_text("\n".join(map(str, range(0, 1_100, 3))))
    given = {"steps": 22, "log_every_steps": 1, "skip_sentences": tmp_path / "ids"}
    argv = pretraining(demo_shards, tmp_path, "run", **given)
    assert run_ranks(run, 1, pretrain.main, argv, {18})[0][0] == 0
    assert failures(tmp_path / "run")[0]["to_step"] == 12  # not 18, which holds the update that ruined the model
    killed = pretraining(demo_shards, tmp_path, "killed", **given)
    with pytest.raises(AssertionError):
        run_ranks(die, 1, killed, {18}, 16)
    assert find_checkpoint(tmp_path / "killed").name == "step_00000012"
    ((status, printed),) = run_ranks(run, 1, pretrain.main, [*killed, "--resume=auto"], {18})
    assert status == 0, printed
    assert comparable_rows(tmp_path / "killed") == comparable_rows(tmp_path / "run")
    assert not list((tmp_path / "killed" / "checkpoints").glob(".partial*"))
    for name in ("run", "killed"):
        replaced = [row["replaced_sentences"] for row in read_rows(tmp_path / name / "metrics.jsonl", "train")]
        assert read_state(find_checkpoint(tmp_path / name))["left_out"]["replaced"] == sum(replaced)


@pytest.mark.distributed
def test_a_run_that_jumps_again_and_again_ends(run_ranks, demo_shards, tmp_path):
    argv = pretraining(demo_shards, tmp_path, "run", max_rollbacks=2, learning_rate=1e-3)
    ((status, printed),) = run_ranks(run, 1, pretrain.main, argv, set(range(20, 100)))
    assert status == UNSTABLE, printed
    assert [row["action"] for row in failures(tmp_path / "run")] == ["rolled back", "rolled back", "ended"]
    assert read_state(find_checkpoint(tmp_path / "run"))["step"] <= 24


@pytest.mark.distributed
def test_fine_tuning_goes_back_too(run_ranks, demo_corpus, tmp_path):
    files = small_corpus(demo_corpus, tmp_path)
    settings = {**FINETUNING, **files, "output": tmp_path / "run", "epochs": 8, "checkpoint_every_epochs": 1}
    argv = command_line({**settings, "rollback_on_spike": 3.0, "keep_checkpoints": 2, "log_every_steps": 1})
    # It is stopped after the last step of an epoch, so that it goes back to before the epoch's evaluation.
    assert run_ranks(run, 2, finetune.main, argv, (), 23)[0][0] == STOPPED
    checkpoint = read_state(find_checkpoint(tmp_path / "run"))
    assert (checkpoint["step"], checkpoint["best"]["evaluated_epoch"]) == (20, 3)
    results = run_ranks(run, 2, finetune.main, [*argv, "--resume=auto"], {22})
    assert [status for status, _ in results] == [0, 0], results
    row = failures(tmp_path / "run")[0]
    assert row["action"] == "rolled back" and row["to_step"] == 20 and row["left_out_steps"] == [22, 23]
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows if row["kind"] != "evaluation"] == list(range(1, 41))
    assert [row["epoch"] for row in rows if row["kind"] == "evaluation"] == list(range(1, 9))
