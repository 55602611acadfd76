"""Whole runs whose numbers overflow: they end with a status of their own, and what they leave is finite."""

import contextlib
import io
import json

import pytest
from small_runs import FINETUNING, PRETRAINING, command_line, small_corpus, zero_stage

from spe_dist import finetune, pretrain
from spe_dist.cli.exits import UNSTABLE
from spe_dist.distributed.checkpoint import list_checkpoints, read_state
from spe_dist.utils.run_files import FAILURES_FILE

TOO_LARGE = ["--learning_rate=1e38", "--warmup_fraction=0"]
HUGE_BUT_FINITE = ["--learning_rate=1e38", "--warmup_fraction=0.99"]  # weights of 1e37 after a step


def run(main, argv):
    stream = io.StringIO()
    with contextlib.redirect_stderr(stream), contextlib.redirect_stdout(stream):
        status = main(argv)
    return status, stream.getvalue()


def statuses(results):
    return [status for status, _ in results]


def failures(output):
    return [json.loads(line) for line in (output / FAILURES_FILE).read_text().splitlines()]


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("ranks", "stage", "precision"), [pytest.param(1, 1, "bfloat16", marks=pytest.mark.long), (2, 2, "float32")]
)
def test_pretraining_saves_nothing_that_is_not_finite(run_ranks, demo_shards, tmp_path, ranks, stage, precision):
    output = tmp_path / "run"
    settings = {**PRETRAINING, "steps": 12, "checkpoint_every_steps": 3, "evaluate_sentences": 0}
    settings |= {"shards": demo_shards, "output": output, "precision": precision}
    argv = [*command_line(settings), zero_stage(tmp_path, stage)]
    results = run_ranks(run, ranks, pretrain.main, [*argv, *TOO_LARGE])
    assert statuses(results) == [UNSTABLE] * ranks
    assert list_checkpoints(output / "checkpoints") == []
    (row,) = failures(output)
    assert row["kind"] == "state" and row["step"] == 1 and row["first_bad_parameter"] in results[0][1]
    assert [len(ids) for ids in row["sentence_ids"]] == [16 // ranks] * ranks
    assert "--resume auto" in results[0][1].splitlines()[-1]

    assert statuses(run_ranks(run, ranks, pretrain.main, [*argv, "--resume=auto", "--steps=6"])) == [0] * ranks
    resumed = [*argv, "--resume=auto"]
    every_step = [*resumed, "--checkpoint_every_steps=1", *HUGE_BUT_FINITE]
    assert statuses(run_ranks(run, ranks, pretrain.main, every_step)) == [UNSTABLE] * ranks
    newest = list_checkpoints(output / "checkpoints")[0]
    assert read_state(newest)["step"] == 6
    assert [(row["kind"], row["step"]) for row in failures(output)[1:]] == [("state", 7)]
    assert statuses(run_ranks(run, ranks, pretrain.main, resumed)) == [0] * ranks


@pytest.mark.distributed
@pytest.mark.parametrize(("ranks", "precision"), [(1, "bfloat16"), pytest.param(2, "float32", marks=pytest.mark.long)])
def test_fine_tuning_keeps_no_model_that_is_not_finite(run_ranks, demo_corpus, tmp_path, ranks, precision):
    files, output = small_corpus(demo_corpus, tmp_path), tmp_path / "run"
    argv = command_line({**FINETUNING, **files, "output": output, "precision": precision, "epochs": 2})
    results = run_ranks(run, ranks, finetune.main, [*argv, *TOO_LARGE, "--head_learning_rate=1e38"])
    assert statuses(results) == [UNSTABLE] * ranks, results
    assert not (output / "model").exists() and not (output / "scores.json").exists()
    (row,) = failures(output)
    assert len(row["sentence_ids"]) == ranks and all(row["sentence_ids"])
    assert statuses(run_ranks(run, ranks, finetune.main, [*argv, "--resume=auto"])) == [0] * ranks
