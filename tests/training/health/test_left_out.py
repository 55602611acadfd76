"""Sentences that a run leaves out: read, kept in checkpoints, replaced alike on any number of ranks, counted."""

import contextlib
import io

import pytest
from small_runs import FINETUNING, PRETRAINING, ask_to_stop, command_line, comparable_rows, small_corpus

from spe_dist import finetune, pretrain
from spe_dist.cli.exits import STOPPED
from spe_dist.distributed.checkpoint import find_checkpoint, read_state
from spe_dist.errors import ConfigError
from spe_dist.training.health.left_out import read_sentence_ids
from spe_dist.training.health.spikes import ENOUGH_STEPS, SpikeWatch
from spe_dist.training.metrics import read_rows


def test_ids_are_read_one_a_line(tmp_path):
    file = tmp_path / "ids"
    for mark in ("", "\ufeff"):
        file.write_text(mark + "12\n\n  3 \n12\n")
        assert read_sentence_ids(file, range(20)) == (3, 12)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("14\nabc\n", "line 2: 'abc' is not a sentence id"),
        ("-1\n", "is not a sentence id"),
        ("1" * 30, "is not a sentence id"),
        ("20\n", "line 1: there is no training sentence 20; ids go from 10 to 19"),
        ("\n".join(map(str, range(10, 20))), "leaves no sentence"),
        (b"\xff\xfe\x00", "cannot be read .*text"),
        (None, "cannot be read .*No such file"),
    ],
)
def test_a_file_that_is_none_of_ids_is_refused_by_line(tmp_path, content, message):
    file = tmp_path / "ids"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=f"skip_sentences=.*{message}"):
        read_sentence_ids(file, range(10, 20))


def rows_of(losses, applied=1):
    return [{"loss": loss, "applied": applied} for loss in losses]


def test_a_loss_far_above_the_median_is_a_spike_once_enough_is_known():
    watch = SpikeWatch(2.0)
    assert all(watch.usual_loss(row) is None for row in rows_of([9.0, *[1.0] * (ENOUGH_STEPS - 2), 9.0]))
    assert watch.usual_loss(*rows_of([2.0])) is None and watch.usual_loss(*rows_of([2.01])) == 1.0
    assert watch.usual_loss(*rows_of([99.0], applied=0)) is None
    assert SpikeWatch(0.0, [1.0] * 64).usual_loss(*rows_of([99.0])) is None


def run(main, argv, stop_after=None):
    if stop_after is not None:
        ask_to_stop(stop_after)
    stream = io.StringIO()
    with contextlib.redirect_stderr(stream), contextlib.redirect_stdout(stream):
        status = main(argv)
    return status, stream.getvalue()


@pytest.mark.distributed
def test_pretraining_leaves_sentences_out_and_a_resumed_run_keeps_to_it(run_ranks, demo_shards, tmp_path):
    ids = tmp_path / "ids"
    ids.write_text("\n".join(map(str, range(0, 1_100, 3))))
    settings = {**PRETRAINING, "steps": 8, "evaluate_sentences": 0, "shards": demo_shards, "dropout": 0}
    outputs = [tmp_path / name for name in ("one", "two", "parts")]
    one, two, parts = (command_line({**settings, "output": output}) for output in outputs)
    ((status, printed),) = run_ranks(run, 1, pretrain.main, [*one, f"--skip_sentences={ids}"])
    assert status == 0 and "367 sentences of" in printed and "left out of training: 367 sentences (others" in printed
    results = run_ranks(run, 2, pretrain.main, [*two, f"--skip_sentences={ids}", "--loader_workers=1"])
    assert [status for status, _ in results] == [0, 0]
    alone, together = (
        [row["replaced_sentences"] for row in read_rows(o / "metrics.jsonl", "train")] for o in outputs[:2]
    )
    assert alone == together and sum(alone) > 20
    assert read_state(find_checkpoint(outputs[0]))["left_out"]["replaced"] == sum(alone)

    assert run_ranks(run, 1, pretrain.main, [*parts, f"--skip_sentences={ids}"], 17)[0][0] == STOPPED
    ((status, printed),) = run_ranks(run, 1, pretrain.main, [*parts, "--resume=auto"])
    assert status == 0 and "367 sentences left out, as in" in printed
    assert comparable_rows(outputs[2]) == comparable_rows(outputs[0])
    ids.write_text("3\n4\n5\n")
    again = [*parts, "--resume=auto", f"--skip_sentences={ids}", "--steps=9"]
    ((status, printed),) = run_ranks(run, 1, pretrain.main, again)
    assert status == 0 and "left out since step_00000008: 2 sentences more, 366 no longer" in printed


@pytest.mark.distributed
def test_fine_tuning_leaves_sentences_of_its_file_out(run_ranks, demo_corpus, tmp_path):
    files, ids = small_corpus(demo_corpus, tmp_path), tmp_path / "ids"
    ids.write_text("\n".join(map(str, range(10))))
    found = []
    for ranks in (1, 2):
        output = tmp_path / f"run{ranks}"
        argv = command_line({**FINETUNING, **files, "output": output, "epochs": 2, "skip_sentences": ids})
        results = run_ranks(run, ranks, finetune.main, argv)
        assert [status for status, _ in results] == [0] * ranks, results
        assert "left out of training: 10 sentences (others took their place 20 times)" in results[0][1]
        found.append([row["replaced_sentences"] for row in read_rows(output / "metrics.jsonl", "train")])
    assert found[0] == found[1] and sum(found[0]) == 20
    ids.write_text("\n".join(map(str, range(40))))
    argv = command_line({**FINETUNING, **files, "output": tmp_path / "none", "skip_sentences": ids})
    ((status, printed),) = run_ranks(run, 1, finetune.main, argv)
    assert status == 2 and "leaves no sentence to train on" in printed
