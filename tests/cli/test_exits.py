"""How commands end: exit status, one line for a user's error, and outputs that cannot take what is written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from project import ROOT

from spe_dist.cli import exits
from spe_dist.cli.exits import run_command, run_training
from spe_dist.errors import ConfigError
from spe_dist.experiments import runner


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (1, 1)])
def test_the_status_is_the_commands_own(returned, status):
    assert run_command(lambda: returned) == status


def test_a_users_error_is_one_line_and_status_2(capsys):
    def fail() -> None:
        print("before")
        raise ConfigError("steps=0 trains nothing; give a number from 1 on")

    assert run_command(fail) == 2
    assert capsys.readouterr() == ("before\n", "error: steps=0 trains nothing; give a number from 1 on\n")


def test_other_errors_are_shown_whole():
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 // 0)


def test_an_interrupt_is_said(capsys):
    def interrupt() -> None:
        raise KeyboardInterrupt

    assert run_command(interrupt, interrupted="the same command continues") == 130
    assert capsys.readouterr().err == "the same command continues\n"


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0)])
def test_training_interrupted_before_it_could_save_says_so_once(rank, lines, monkeypatch, capsys):
    def interrupt() -> int:
        raise KeyboardInterrupt

    monkeypatch.setenv("RANK", rank)
    assert run_training(interrupt) == 130
    assert len(capsys.readouterr().err.splitlines()) == lines


def test_a_reader_that_leaves_early_is_no_error():
    program = "from spe_dist.cli.exits import *; sys.exit(run_command(lambda: [print(i) for i in range(99999)] and 0))"
    command = f"'{sys.executable}' -c '{program}' | head -n 1"
    result = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, cwd=ROOT)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"0\n", b"")


@pytest.mark.parametrize(
    ("call", "streams"),
    [("run_training(work)", "2>&1 "), ("run_training(work)", ""), ("run_command(work, lasting=True)", "")],
)
def test_work_whose_output_nobody_reads_any_more_is_done_all_the_same(tmp_path, call, streams):
    """As `spe pretrain | tee log` at Ctrl-C, which ends tee at once."""
    code = f"""
import sys
from spe_dist.cli.exits import *
def work():
    for number in range(9999):
        print(number, flush=number % 10 == 0)
        print("told", file=sys.stderr)
    open({str(tmp_path / "saved")!r}, "w").close()
    print("saved")
    return STOPPED
raise SystemExit({call})
"""
    program = f'unset PYTHONUNBUFFERED; "$0" -c "$1" {streams}| head -n 1'
    command = ["bash", "-o", "pipefail", "-c", program, sys.executable, code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 75 and (tmp_path / "saved").exists() and done.stdout == "0\n"
    assert set(done.stderr.split()) == (set() if streams else {"told"})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_training_whose_log_lies_on_a_full_disk_goes_on():
    code = (
        "from spe_dist.cli.exits import *; raise SystemExit(run_training(lambda: print('told', flush=True) or STOPPED))"
    )
    done = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" >/dev/full', sys.executable, code], capture_output=True, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (75, b"")


def test_a_file_whose_name_is_no_utf8_is_named(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"\xff.json")
    with open(path, "w") as file:
        file.write('{"tokens": ["Ada"], "entities": [], "relations": []}\n')
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    command = [os.fsencode(sys.executable), b"-m", b"spe_dist", b"corpus", b"inspect", path]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True)
    assert result.returncode == 0 and rb"\udcff.json" in result.stdout and not result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize(("output", "status"), [(">/dev/full", 2), (">&-", 0)])
def test_an_output_that_is_full_or_closed_ends_without_a_traceback(output, status):
    code = "from spe_dist.cli.exits import run_command; raise SystemExit(run_command(lambda: print('told')))"
    command = ["bash", "-c", f'"$0" -c "$1" {output}', sys.executable, code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == status and "Traceback" not in done.stderr
    assert ("No space left" in done.stderr) == (status == 2)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_an_error_is_told_though_the_output_is_full():
    code = """
from spe_dist.cli.exits import run_command
from spe_dist.errors import DataError
def fail():
    print("told")
    raise DataError("what matters")
raise SystemExit(run_command(fail))
"""
    command = ["bash", "-c", 'unset PYTHONUNBUFFERED; "$0" -c "$1" >/dev/full', sys.executable, code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (2, "error: what matters\n")


@pytest.mark.parametrize(
    ("rank", "ranks", "restarts", "status"),
    [(0, 1, None, 75), (0, 2, None, 75), (1, 2, None, 0), (0, 2, "0", 75), (0, 2, "3", 0)],
)
def test_rank_0_alone_gives_a_stopped_run_its_status_unless_torchrun_would_restart_it(
    rank, ranks, restarts, status, monkeypatch
):
    waited = []
    monkeypatch.setattr(exits.time, "sleep", waited.append)
    if restarts is None:
        monkeypatch.delenv("TORCHELASTIC_MAX_RESTARTS", raising=False)
    else:
        monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", restarts)
    assert exits.stopped_status(rank, ranks) == status
    assert bool(waited) == (status == 75 and ranks > 1)


def test_the_table_of_statuses_is_that_of_the_constants():
    documented = re.findall(r"^    (\d+) ", exits.__doc__, flags=re.MULTILINE)
    values = [exits.DONE, exits.FAILED, exits.USER_ERROR, exits.UNSTABLE, exits.STOPPED, exits.INTERRUPTED]
    assert list(map(int, documented)) == values
    assert (runner.FINISHED, runner.FAILED, runner.STOPPED, runner.INTERRUPTED) == (0, 1, 75, 130)
    script = (ROOT / "slurm" / "job.sh").read_text()
    assert "STOPPED=75 UNSTABLE=3" in script


def test_a_missing_package_of_the_training_extra_is_one_line(capsys):
    def fail() -> None:
        raise ModuleNotFoundError("No module named 'deepspeed'", name="deepspeed.ops")

    for run in (run_command, run_training):
        assert run(fail) == 2
        assert capsys.readouterr().err == (
            "error: this needs deepspeed, which is not installed; pip install 'spe-dist[train]'\n"
        )
        with pytest.raises(ModuleNotFoundError):
            run(lambda: __import__("no_such_module"))


def test_a_python_without_the_base_installation_is_one_line(capsys):
    def fail() -> None:
        raise ModuleNotFoundError("No module named 'transformers'", name="transformers.utils")

    assert run_command(fail) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"transformers is not installed for {sys.executable}; activate" in said


@pytest.mark.parametrize("run", [run_command, run_training])
@pytest.mark.parametrize(
    "allocate",
    [lambda: torch.empty(2**60, dtype=torch.uint8), lambda: np.empty(2**60, np.uint8), lambda: _raise(MemoryError())],
    ids=["torch", "numpy", "Python"],
)
def test_too_little_memory_is_one_line(run, allocate, capsys):
    assert run(allocate) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: out of memory (") and said.count("\n") == 1


def test_too_little_memory_of_a_gpu_is_one_line(capsys):
    assert run_training(lambda: _raise(torch.OutOfMemoryError("CUDA out of memory. Tried\nto allocate 2 GiB"))) == 2
    assert "(CUDA out of memory. Tried to allocate 2 GiB): lower micro_batch_sentences" in capsys.readouterr().err


def _raise(error):
    raise error
