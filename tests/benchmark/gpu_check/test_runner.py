"""Stages that crash, hang or print nonsense: none is lost to another. The runner has a process of its own here, since
it ends every child that it has."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from project import ROOT

from spe_dist.benchmark.gpu_check.runner import Stage, fair_limit

GIVE = 'print(\'result: {"name": "a figure", "ms": 1.5}\', flush=True)'
# A process that its stage loses sight of, and that does not want to end.
STRAY = """
import os, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-S", "-c", "import signal, time; "
    "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"], start_new_session=True)
print("stray", child.pid, flush=True)
"""
STAGES = {
    "good": GIVE,
    "crash": f"{GIVE}; import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "status": f"{GIVE}; raise ValueError('a reason')",
    "hang": f"{STRAY}\n{GIVE}\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)",
    "leaves": f"{STRAY}\n{GIVE}",
    "nonsense": "print('result: {\"name\": ')",
    "binary": f"import os; os.write(1, bytes(range(256)) + b'\\n'); {GIVE}",
    "memory": f"{GIVE}; raise RuntimeError('CUDA out of memory. Tried to allocate 3 GiB')",
    "nothing": "print('only words')",
    "closes": f"import os, time; {GIVE}; os.close(1); os.close(2); time.sleep(0.3)",
    "endless": f"{GIVE}\nfor _ in range(40_000): print('x' * 99)",
    "last": GIVE,
}
LIMITS = {"hang": 1.0}

DRIVER = """
import json, os, sys
from pathlib import Path
from spe_dist.benchmark.gpu_check.record import Record
from spe_dist.benchmark.gpu_check.runner import Runner, Stage
stages = [Stage(*entry) for entry in json.loads(sys.argv[2])]
record = Record(Path(sys.argv[1]))
print(json.dumps(Runner(record, float(sys.argv[3]), os.environ, say=lambda line: None).run(stages)))
"""


def start(folder, stages, seconds=120.0, limits=LIMITS):
    # Twice the limit is what a stage gets where there is time.
    entries = [(name, limits.get(name, 30.0) / 2, (sys.executable, "-S", "-c", code)) for name, code in stages.items()]
    command = [sys.executable, "-c", DRIVER, str(folder), json.dumps(entries), str(seconds)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def rows_of(folder, stage):
    lines = (folder / "results.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["stage"] == stage]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(folder, how each stage ended) of a run of all of them."""
    folder = tmp_path_factory.mktemp("check")
    out, errors = start(folder, STAGES, seconds=600.0).communicate(timeout=120)
    return folder, json.loads(out or errors)


@pytest.mark.parametrize(
    "stage, status",
    [
        ("good", "done"),
        ("crash", "failed, SIGSEGV"),
        ("status", "failed, exit status 1"),
        ("hang", "time is up"),
        ("leaves", "done"),
        ("nonsense", "failed, unreadable result"),
        ("binary", "done"),
        ("memory", "out of memory"),
        ("nothing", "no result"),
        ("closes", "done"),
        ("endless", "done"),
        ("last", "done"),
    ],
)
def test_each_stage_ends_as_it_did_whatever_came_before(finished, stage, status):
    folder, ends = finished
    assert ends[stage] == status
    first, *results, last = rows_of(folder, stage)
    assert (first["name"], last["name"], last["status"]) == ("stage began", "stage ended", status)
    if stage not in ("nonsense", "nothing"):
        assert [(row["name"], row["ms"]) for row in results] == [("a figure", 1.5)]


def test_an_unreadable_result_is_kept_as_text(finished):
    (row,) = [row for row in rows_of(finished[0], "nonsense") if row["name"] == "unreadable result"]
    assert row["text"] == '{"name":'


def test_what_a_stage_says_is_in_the_log(finished):
    log = (finished[0] / "log.txt").read_text()
    assert "[status] ValueError: a reason" in log and "[nothing] only words" in log
    assert "a figure" not in log


def test_a_stage_that_prints_without_end_fills_no_disk(finished):
    lines = [line for line in (finished[0] / "log.txt").read_text().splitlines() if line.startswith("[endless]")]
    assert 9_000 < len(lines) < 12_000 and "the rest is left out" in lines[-1]


@pytest.mark.parametrize("stage", ["hang", "leaves"])
def test_no_process_of_a_stage_is_left(finished, stage):
    folder, _ = finished
    log = (folder / "log.txt").read_text()
    pid = int(log.partition(f"[{stage}] stray ")[2].split()[0])
    assert not psutil.pid_exists(pid)
    assert rows_of(folder, stage)[-1]["left_processes"] == 1


def test_a_result_is_on_the_disk_while_its_stage_still_runs_and_an_interrupt_ends_the_stage(tmp_path):
    process = start(tmp_path, {"slow": f"{STRAY}\n{GIVE}\ntime.sleep(600)", "next": GIVE}, limits={"slow": 500.0})
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until and not any("ms" in row for row in _rows(tmp_path, "slow")):
            time.sleep(0.05)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    finally:
        process.kill()
    assert _rows(tmp_path, "slow")[-1]["status"] == "interrupted"
    assert _rows(tmp_path, "next") == []
    pid = int((tmp_path / "log.txt").read_text().split("stray ")[1].split()[0])
    assert not psutil.pid_exists(pid)


def _rows(folder, stage):
    return rows_of(folder, stage) if (folder / "results.jsonl").exists() else []


def test_stages_without_time_do_not_begin(tmp_path):
    out, errors = start(tmp_path, {"good": GIVE}, seconds=3.5).communicate(timeout=60)
    assert json.loads(out or errors) == {"good": "not begun"}


def test_time_is_shared_by_limits_and_what_is_left_over_is_given_on():
    stages = [Stage("a", 20.0, ()), Stage("b", 60.0, ()), Stage("c", 40.0, ())]
    assert fair_limit(stages, 120.0) == 20.0
    assert fair_limit(stages, 60.0) == 10.0  # half of the time: half for each
    # A stage that takes its share leaves the others theirs, one that takes less leaves them more.
    assert fair_limit(stages[1:], 50.0) == pytest.approx(30.0)
    assert fair_limit(stages[1:], 100.0) == pytest.approx(60.0)
    assert fair_limit(stages[1:], 110.0) == pytest.approx(66.0)
    assert fair_limit(stages[2:], 1_000.0) == 80.0  # at most twice its own
    assert fair_limit(stages, -5.0) < 0


def test_the_runner_knows_nothing_of_torch():
    code = "import sys, spe_dist.benchmark.gpu_check.check; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=dict(os.environ)).returncode == 0
