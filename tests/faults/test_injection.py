"""Traps go off at the call or change of a file that they name, in the rank that they name, and nowhere else."""

from __future__ import annotations

import functools
import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from project import ROOT

from tests.faults import injection
from tests.faults.injection import FILE_EVENT, Injector, Plan, Trap
from tests.faults.moments import MOMENTS, RESTORING, places

PROGRAM = """
import os
from wares.far import Counter, tick
from wares.near import twice
os.makedirs(OUTPUT)
for i in range(3):
    tick()
    Counter().up(i)
    twice()
    open(os.path.join(OUTPUT, f"file{i}"), "w").close()
    os.rename(os.path.join(OUTPUT, f"file{i}"), os.path.join(OUTPUT, f"kept{i}"))
    open(os.path.join(OUTPUT, f"kept{i}")).close()
print("done")
"""


@pytest.fixture
def run(tmp_path):
    """`run(rank, *traps, counted=())`: a small program in a process with these traps; (status, notes by name)."""
    package = tmp_path / "wares"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "far.py").write_text("class Counter:\n    def up(self, n): return n\n\ndef tick(): return 1\n")
    (package / "near.py").write_text("from wares.far import tick\n\ndef twice(): return tick() + tick()\n")
    output, notes = tmp_path / "output", tmp_path / "notes"
    notes.mkdir()

    def start(rank, *traps, counted=()):
        plan = tmp_path / "plan.json"
        plan.write_text(Plan(str(notes), str(output), traps, counted).to_json())
        program = tmp_path / "pretrain.py"  # by such a name the sitecustomize knows a program that trains
        program.write_text(PROGRAM.replace("OUTPUT", repr(str(output))))
        path = os.pathsep.join([str(ROOT / "tests" / "faults" / "inject"), str(tmp_path)])
        environment = {**os.environ, "PYTHONPATH": path, "RANK": str(rank), injection.VARIABLE: str(plan)}
        done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True)
        return done.returncode, {file.name: file.read_text() for file in notes.iterdir()}, done.stderr

    return start


def test_a_program_without_a_trap_runs_as_ever_and_its_calls_are_counted(run):
    counted = ("wares.far:tick", "wares.far:Counter.up", FILE_EVENT)
    status, notes, errors = run(1, counted=counted)
    assert status == 0, errors
    assert '"wares.far:tick": 9' in notes["counts.1"] and '"wares.far:Counter.up": 3' in notes["counts.1"]
    assert f'"{FILE_EVENT}": 7' in notes["counts.1"]  # a folder, three files, three renamings; reading is none
    assert "fired.1" not in notes


@pytest.mark.parametrize(
    ("at", "count", "kept"), [("wares.far:tick", 4, 1), ("wares.far:Counter.up", 3, 2), (FILE_EVENT, 5, 1)]
)
def test_a_rank_dies_before_the_call_that_is_named(run, tmp_path, at, count, kept):
    status, notes, errors = run(1, Trap(1, at, count))
    assert status == -signal.SIGKILL, errors
    assert f'"count": {count}' in notes["fired.1"]
    assert len([name for name in os.listdir(tmp_path / "output") if name.startswith("kept")]) == kept


def test_another_rank_lives_on(run):
    status, notes, _ = run(0, Trap(1, "wares.far:tick", 1))
    assert status == 0 and "fired.0" not in notes


def test_a_process_that_is_no_rank_or_trains_nothing_is_not_touched(run, tmp_path):
    plan = tmp_path / "plan.json"
    plan.write_text(Plan(str(tmp_path), str(tmp_path), (Trap(0, "json:loads"),)).to_json())
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "faults" / "inject"), "RANK": "0"}
    environment[injection.VARIABLE] = str(plan)
    done = subprocess.run([sys.executable, "-c", "import json; json.loads('1')"], env=environment)
    assert done.returncode == 0 and not list(tmp_path.glob("pid.*"))


def test_a_full_disk_and_a_spoiled_loss_go_into_the_arguments(tmp_path):
    injector = Injector(Plan(str(tmp_path), str(tmp_path / "run"), (Trap(0, "place", 2, "spoil loss"),)), 0)
    assert injector._called("place", "engine", 1.0, "more") == ("engine", 1.0, "more")
    engine, loss, more = injector._called("place", "engine", 1.0, "more")
    assert (engine, more) == ("engine", "more") and loss != loss
    assert injector._called("place", "engine", 1.0) == ("engine", 1.0)


@pytest.mark.parametrize("program", MOMENTS)
def test_the_moments_are_functions_of_the_package(program):
    for at in {*places(program), *RESTORING, *injection.RECORDED} - {FILE_EVENT}:
        module, _, path = at.partition(":")
        assert callable(functools.reduce(getattr, path.split("."), importlib.import_module(module))), at


def test_the_folder_on_the_path_holds_nothing_but_the_hook():
    files = [file.name for file in Path(ROOT / "tests" / "faults" / "inject").iterdir() if file.suffix == ".py"]
    assert files == ["sitecustomize.py"]
