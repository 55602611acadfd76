"""Files and folders of a run that are not as a run leaves them: one line, and a run that goes on where it can."""

import contextlib
import errno
import functools
import io
import multiprocessing
import os
from pathlib import Path

import pytest
from small_runs import FINETUNING, PRETRAINING, command_line, small_corpus

from spe_dist import finetune, pretrain
from spe_dist.cli.exits import USER_ERROR, run_training
from spe_dist.errors import CheckpointError
from spe_dist.training.metrics import Board, read_rows
from spe_dist.utils.files import atomic_folder, check_output, remove_unfinished

SETTINGS = {**PRETRAINING, "steps": 4, "checkpoint_every_steps": 2, "evaluate_sentences": 0, "log_every_steps": 1}


def run(main, argv, prepare=None):
    if prepare is not None:
        prepare()
    stream = io.StringIO()
    with contextlib.redirect_stderr(stream), contextlib.redirect_stdout(stream):
        status = main(argv)
    return status, stream.getvalue()


def is_one_line(printed, *words):
    last = printed.splitlines()[-1]
    assert last.removeprefix("rank 1: ").startswith("error: ") and "Traceback" not in printed
    assert all(word in last for word in words), last


def as_nobody(function, *args):
    """What `function` raises, as text, for a user without rights: root may write everywhere."""

    def child(results):
        if os.geteuid() == 0:
            os.setgid(65_534)
            os.setuid(65_534)
        try:
            results.put((None, function(*args)))
        except Exception as error:
            results.put((type(error).__name__, str(error)))

    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    process = context.Process(target=child, args=(results,))
    process.start()
    process.join(30)
    return results.get()


def test_an_output_folder_that_cannot_be_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    check_output(tmp_path / "a" / "b" / "c")
    with pytest.raises(CheckpointError, match=r"output=.*cannot be made: .*file is not a folder; choose another"):
        check_output(tmp_path / "file" / "run")
    with pytest.raises(CheckpointError, match="link is a link to nothing"):
        check_output(tmp_path / "link")
    tmp_path.chmod(0o755)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    kind, message = as_nobody(check_output, closed / "run")
    assert kind == "CheckpointError" and "you may not write in" in message


@pytest.mark.distributed
def test_both_trainings_refuse_an_output_below_a_file(run_ranks, demo_shards, demo_corpus, tmp_path):
    (tmp_path / "file").touch()
    output = tmp_path / "file" / "run"
    argv = command_line({**SETTINGS, "shards": demo_shards, "output": output})
    for status, printed in run_ranks(run, 2, pretrain.main, argv):
        assert status == USER_ERROR
        is_one_line(printed, "not a folder")
    argv = command_line({**FINETUNING, **small_corpus(demo_corpus, tmp_path), "output": output})
    ((status, printed),) = run_ranks(run, 1, finetune.main, argv)
    assert status == USER_ERROR
    is_one_line(printed, "not a folder")


def fill_disk_at(step):
    """Have the disk full when the rows of a step are written."""
    from spe_dist.training.metrics import MetricLog

    write = MetricLog._write

    def refuse(self, rows):
        if any(row["step"] == step for row in rows):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        write(self, rows)

    MetricLog._write = refuse


@pytest.mark.distributed
def test_a_disk_that_fills_between_checkpoints_ends_all_ranks_in_one_line_and_the_run_resumes(
    run_ranks, demo_shards, tmp_path
):
    argv = command_line({**SETTINGS, "shards": demo_shards, "output": tmp_path / "run"})
    for status, printed in run_ranks(run, 2, pretrain.main, argv, lambda: fill_disk_at(3)):
        assert status == USER_ERROR
        is_one_line(printed, "metrics.jsonl: No space left on device", "--resume auto")
    metrics = tmp_path / "run" / "metrics.jsonl"
    with metrics.open("ab") as file:  # and what else may come into it
        file.write(b'{"kind": "train", "loss": 1.0}\n\xff\x00\xfe\n[1, 2]\n{"step": null}\n' + b"[" * 100_000 + b"\n")
    ((status, printed), _) = run_ranks(run, 2, pretrain.main, [*argv, "--resume=auto"])
    assert status == 0 and "are not rows and are removed" in printed and "step_00000002, step 2" in printed
    assert [row["step"] for row in read_rows(metrics, "train")] == [1, 2, 3, 4]


@pytest.mark.distributed
def test_a_picture_that_cannot_be_drawn_fails_no_run(run_ranks, demo_shards, tmp_path):
    (tmp_path / "run" / "curves.png").mkdir(parents=True)
    argv = command_line({**SETTINGS, "shards": demo_shards, "output": tmp_path / "run"})
    ((status, printed),) = run_ranks(run, 1, pretrain.main, argv)
    assert status == 0 and "warning: " in printed and "curves.png is not drawn" in printed


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_faults_of_the_disk_are_one_line_of_any_training(capsys, number):
    def fail():
        raise OSError(number, os.strerror(number), "RUN/config.yaml")

    assert run_training(fail) == USER_ERROR
    assert capsys.readouterr().err.startswith(f"error: RUN/config.yaml: {os.strerror(number)}; correct that")


def test_what_dead_writers_left_goes_and_what_others_write_stays(tmp_path):
    output = tmp_path / "model"
    with atomic_folder(output) as folder:
        (folder / "weights").write_text("1")
        ours = folder.name
    host, _, _ = ours.removeprefix(".model.").partition("~")
    process = multiprocessing.get_context("fork").Process(target=lambda: None)
    process.start()
    process.join()
    dead = [tmp_path / f".model.{host}~{process.pid}~x.{kind}" for kind in ("writing", "old")]
    alive = [
        tmp_path / f".model.{host}~{os.getpid()}~x.writing",
        tmp_path / f".model.elsewhere~{process.pid}~x.writing",
    ]
    foreign = [tmp_path / ".notes.txt.old", tmp_path / ".model.old"]
    for folder in (*dead, *alive, *foreign):
        folder.mkdir()
        (folder / "weights").write_text("0")
    with atomic_folder(output) as folder:
        (folder / "weights").write_text("2")
    assert {path.name for path in tmp_path.iterdir()} == {"model", *(path.name for path in (*alive, *foreign))}
    remove_unfinished(tmp_path)  # of a folder that is this run's alone
    assert {path.name for path in tmp_path.iterdir()} == {"model", ".notes.txt.old", ".model.old"}
    assert Path(output / "weights").read_text() == "2"


def remove_after(folder, step):
    """Remove `folder` once a row of this step is written; only in this process."""
    show = Board.show

    def show_and_remove(self, row):
        show(self, row)
        if row["step"] == step and folder.exists():
            folder.rename(folder.with_name("removed"))  # at once, whatever another thread writes there

    Board.show = show_and_remove


@pytest.mark.distributed
def test_a_run_goes_on_without_tensorboards_files_and_says_so_once(run_ranks, demo_shards, tmp_path):
    settings = {**SETTINGS, "steps": 60, "checkpoint_every_steps": 0, "shards": demo_shards, "output": tmp_path / "run"}
    prepare = functools.partial(remove_after, tmp_path / "run" / "tensorboard", 2)
    ((status, printed),) = run_ranks(run, 1, pretrain.main, command_line(settings), prepare)
    assert status == 0 and "Traceback" not in printed, printed
    assert printed.count("no more figures for TensorBoard") == 1, printed
    assert len(read_rows(tmp_path / "run" / "metrics.jsonl", "train")) == 60
