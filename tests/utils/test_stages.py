"""Stages of the demo: what is shown, what is kept in logs, and how a failure is reported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from project import ROOT

from spe_dist.utils.commands import command_variables
from spe_dist.utils.stages import Stage, StageError, run_stage


def script(place: Path, text: str) -> Path:
    file = place / "script.py"
    file.write_text(text)
    return file


def test_commands_import_nothing_from_the_folder_they_run_in(tmp_path, monkeypatch):
    (tmp_path / "random.py").write_text("open('MARKER', 'w').close()")
    monkeypatch.chdir(tmp_path)
    run_stage(Stage("ours", "Ours", "spe --version"), 1, 2, tmp_path)
    run_stage(Stage("module", "Module", "python -c", more=["import random"]), 2, 2, tmp_path)
    assert not (tmp_path / "MARKER").exists()
    monkeypatch.syspath_prepend("")
    assert "PYTHONSAFEPATH" not in command_variables()  # python -m, in a checkout for one


def test_a_stage_shows_its_command_and_keeps_its_output_in_a_log(tmp_path, capsys):
    stage = Stage("small", "A small stage", "python", script(tmp_path, "print('hello')"), "--number", 3)
    cost = run_stage(stage, 2, 5, tmp_path)
    shown = capsys.readouterr().out
    assert "[2/5] A small stage" in shown and f"$ python {tmp_path}/script.py --number 3" in shown
    assert "hello" not in shown
    assert (tmp_path / "small.log").read_text() == "hello\n"
    assert cost.seconds > 0 and cost.cpu_seconds > 0


def test_python_and_spe_are_those_of_this_environment(tmp_path, capsys):
    code = "import sys; print(sys.executable)"
    run_stage(Stage("which", "Which", "python", script(tmp_path, code)), 1, 2, tmp_path)
    assert (tmp_path / "which.log").read_text().strip() == sys.executable
    run_stage(Stage("version", "Version", "spe --version"), 2, 2, tmp_path)
    assert (tmp_path / "version.log").read_text().startswith("spe")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("print('step 1'); sys.exit('error: steps=0: nothing would be trained')", "steps=0: nothing would be trained"),
        ("print('first'); print('error: that is why'); print('a line of the launcher'); sys.exit(1)", "that is why"),
        ("print('Killed'); sys.exit(1)", "Killed"),
        ("sys.exit(1)", "it wrote nothing"),
    ],
)
def test_a_failure_is_one_line_with_the_reason_that_the_command_gave(code, reason, tmp_path):
    stage = Stage("broken", "Pre-training", "python", script(tmp_path, f"import sys; {code}"))
    with pytest.raises(StageError) as failed:
        run_stage(stage, 1, 1, tmp_path)
    assert str(failed.value) == f"Pre-training ended with status 1: {reason} (all of it: {tmp_path / 'broken.log'})"
    assert failed.value.status == 1


def test_the_status_of_a_stopped_stage_is_passed_on(tmp_path):
    stage = Stage("stopped", "Pre-training", "python", script(tmp_path, "import sys; sys.exit(75)"))
    with pytest.raises(StageError) as stopped:
        run_stage(stage, 1, 1, tmp_path)
    assert stopped.value.status == 75


COUNTING = """
import signal, sys, time
got = []
signal.signal(signal.SIGINT, lambda *_: got.append(1))
print("ready", flush=True)
deadline = time.monotonic() + 20
while not got and time.monotonic() < deadline:
    time.sleep(0.02)
time.sleep(0.5)
print("signals:", len(got), flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_reaches_a_command_once_and_so_do_signals_that_end_a_program(tmp_path, number):
    """A training saves at one SIGINT and ends at a second."""
    program = f"""
from pathlib import Path
from spe_dist.utils.commands import command_variables
from spe_dist.utils.stages import Stage, run_stage
run_stage(Stage("small", "Small", "python", {str(script(tmp_path, COUNTING))!r}), 1, 1, Path({str(tmp_path)!r}))
"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, start_new_session=True) as process:
        log = tmp_path / "small.log"
        while "ready" not in (log.read_text() if log.exists() else ""):
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, number)  # as a terminal sends it
        process.wait(30)
    assert log.read_text().endswith("signals: 1\n")
