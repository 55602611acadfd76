"""The short part of `make test-faults`: a few faults of different kinds, by the command itself."""

from __future__ import annotations

import subprocess
import sys

import pytest
from project import ROOT

from tests.faults.results import SKIPPED, SURVIVED, read

KINDS = ["killed: saving", "killed: average", "killed: enqueue", "bit of the newest", "asked to stop at"]


@pytest.mark.slow
@pytest.mark.distributed
def test_small_runs_survive_a_few_faults(tmp_path):
    command = [sys.executable, "-m", "tests.faults", "run", "--results", str(tmp_path), "--cases", str(len(KINDS))]
    done = subprocess.run([*command, "--only", *KINDS], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = read(tmp_path / "results.jsonl")
    assert len({result.kind for result in found}) == len(KINDS)
    assert {result.outcome for result in found} <= {SURVIVED, SKIPPED}
    assert sum(result.faults for result in found) >= len(KINDS) - 1


def test_a_word_that_no_kind_has_ends_with_the_list_of_kinds(tmp_path):
    command = [sys.executable, "-m", "tests.faults", "run", "--results", str(tmp_path), "--only", "meteor"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("no kind of fault has meteor in its name: a rank is killed: start-up;")
