"""The harness itself sees what it is there to see: other losses, other sentences, hanging ranks, leftovers."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.faults.attempts import Attempt, FaultError, Forked, launch
from tests.faults.case import Case, CaseId, compare_nearly
from tests.faults.runs import Reference, Setup, trained_ids

ROWS = [{"kind": "train", "step": step, "loss": 1.0 / step, "learning_rate": 0.1} for step in (1, 2, 3)]
IDS = {0: {0: {"step": 0, "ids": [1, 2]}, 1: {"step": 1, "ids": [3, 4]}}}


class FakeRuns:
    def reference(self, setup):
        return Reference(ROWS, IDS, {0: {}}, seconds=1.0, step_s=0.1)


@pytest.fixture
def case(tmp_path, monkeypatch):
    """A case whose run has been trained to its end as it should."""
    monkeypatch.setattr(Case, "check_nothing_left", lambda self: None)
    case = Case(CaseId("kind", 0, 0), FakeRuns(), tmp_path, random.Random(0))
    (tmp_path / "run").mkdir()
    write_rows(case, ROWS)
    case.attempts.append(started(tmp_path, {0: [*IDS[0].values()]}))
    return case


def write_rows(case, rows):
    (case.output / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def started(folder, ids):
    attempt = Attempt(folder, 0.0, {})
    for rank, lines in ids.items():
        (folder / f"ids.{rank}").write_text("".join(json.dumps({"time": 1.0, **line}) + "\n" for line in lines))
    return attempt


def test_a_run_that_is_equal_passes(case):
    case.compare()


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([ROWS[0], {**ROWS[1], "loss": 0.5000001}, ROWS[2]], "row of step 2 differs .*'loss': \\(0.5000001, 0.5\\)"),
        (ROWS[:2], "2 rows, the undisturbed run has 3"),
        ([*ROWS[:2], *ROWS[1:]], "row of step 2 differs"),
    ],
)
def test_another_loss_a_missing_row_and_a_row_twice_are_seen(case, rows, words):
    write_rows(case, rows)
    with pytest.raises(FaultError, match=words):
        case.compare()


def test_other_sentences_are_seen(case, tmp_path):
    case.attempts = [started(tmp_path, {0: [{"step": 0, "ids": [1, 2]}, {"step": 1, "ids": [3, 5]}]})]
    with pytest.raises(FaultError, match="rank 0 trained on other sentences"):
        case.compare()


def test_a_step_that_is_trained_again_on_other_sentences_is_seen(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    first, second = (
        started(f, {0: [{"step": 4, "ids": ids}]}) for f, ids in zip(folders, ([1, 2], [2, 1]), strict=True)
    )
    assert trained_ids([first, first]) == {0: {4: {"step": 4, "ids": [1, 2]}}}
    with pytest.raises(FaultError, match="rank 0 trained step 4 on"):
        trained_ids([first, second])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"loss": 1.001}, "step 1: loss 1.001"),
        ({"learning_rate": 0.2}, "step 1: learning rate 0.2"),
        ({"step": 7}, "steps \\[7, 2, 3\\]"),
    ],
)
def test_on_other_ranks_losses_may_differ_by_rounding_alone(changed, words):
    compare_nearly([{**ROWS[0], "loss": 1.0 + 1e-7}, *ROWS[1:]], ROWS)
    with pytest.raises(FaultError, match=words):
        compare_nearly([{**ROWS[0], **changed}, *ROWS[1:]], ROWS)


def test_a_rank_that_hangs_and_a_wrong_status_are_seen(tmp_path):
    commands = {"good": [sys.executable, "-c", "0"], "hangs": ["sleep", "60"]}
    attempt = launch(commands, tmp_path, os.environ)
    with pytest.raises(FaultError, match=r"still running after 1.5 s; ended so far: \{'good': 0\}"):
        attempt.wait(1.5)
    attempt.end()
    assert attempt.processes["hangs"].poll() == -signal.SIGKILL
    case = Case(CaseId("kind", 0, 0), FakeRuns(), tmp_path, random.Random(0))
    attempt.statuses["hangs"] = -9
    case.check_statuses(attempt, {0, -9})
    with pytest.raises(FaultError, match=r"ended with \{'hangs': -9\}, expected \[0, 1\]"):
        case.check_statuses(attempt, {0, 1})


def test_a_fork_tells_its_status_and_signal():
    for ending, status in ((lambda: os._exit(75), 75), (lambda: os.kill(os.getpid(), signal.SIGKILL), -9)):
        pid = os.fork()
        if pid == 0:
            ending()
        rank = Forked(pid)
        while rank.poll() is None:
            time.sleep(0.01)
        assert rank.poll() == status


def test_an_orphan_is_seen_and_ended(tmp_path):
    """In a process of its own: this one may have children of other tests."""
    program = f"""
import os, random, subprocess, sys
from pathlib import Path
from tests.faults.attempts import FaultError, adopt_orphans, descendants
from tests.faults.case import Case, CaseId
import tests.faults.case as module
module.LEAVING_S = 0.5
adopt_orphans()
subprocess.run(["sh", "-c", "sleep 60 >/dev/null 2>&1 &"])
case = Case(CaseId("kind", 0, 0), None, Path({str(tmp_path)!r}), random.Random(0))
try:
    case.check_nothing_left()
except FaultError as error:
    print(error)
case.end()
print(descendants())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.startswith("processes are left: ['") and "sleep 60" in done.stdout, done.stderr
    assert done.stdout.endswith("\n[]\n")


def test_steps_that_are_trained_again_are_counted(case, tmp_path):
    (tmp_path / "rank_0.log").write_text("resuming from x/step_00000001, step 1\n")
    attempt = case.attempts[0]
    attempt.began = 0.25
    case.count_lost(attempt, case.steps_done())
    assert case.steps_lost == 2
    assert case.resume_s == [0.75]


def test_a_case_is_named_by_its_kind_seed_and_number():
    assert str(CaseId.parse("a kind/with a slash/3/17")) == "a kind/with a slash/3/17"
    assert CaseId.parse("a/3/17") == CaseId("a", 3, 17)
    assert Setup("finetune", 2, 3, (("a", 1),)).name == "finetune 2 ranks ZeRO-3 a=1"
