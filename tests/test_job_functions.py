"""Functions of slurm/job.sh, without Slurm."""

from __future__ import annotations

import re
import subprocess

import pytest
from project import ROOT


@pytest.mark.parametrize(
    ("variables", "gpus"),
    [
        ("", "0"),
        ("SLURM_GPUS_ON_NODE=4", "4"),
        ("SLURM_GPUS_ON_NODE=a100:4", "4"),
        ("SLURM_JOB_GPUS=0,1,2", "3"),
        ("SLURM_JOB_GPUS=3", "1"),
    ],
)
def test_gpus_are_counted_by_what_slurm_says(variables, gpus):
    function = re.search(r"^count_gpus\(\) \{.*?^\}", (ROOT / "slurm" / "job.sh").read_text(), re.DOTALL | re.MULTILINE)
    script = f"set -eu\n{variables}\n{function[0]}\ncount_gpus"
    assert subprocess.run(["bash", "-c", script], capture_output=True, text=True, env={}).stdout == f"{gpus}\n"


def test_the_first_of_thousands_of_nodes_is_where_the_ranks_meet():
    (line,) = re.findall(r"^MASTER_ADDR=.*", (ROOT / "slurm" / "job.sh").read_text(), re.MULTILINE)
    lines = [
        "set -euo pipefail",
        "SLURM_JOB_NODELIST=x",
        "scontrol() { printf 'node%d\\n' {1..50000}; }",
        line,
        "echo $MASTER_ADDR",
    ]
    found = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "node1\n")


@pytest.mark.parametrize(("answers_at", "state"), [(1, "RUNNING"), (3, "RUNNING"), (99, "")])
def test_a_controller_that_does_not_answer_is_asked_again(answers_at, state):
    body = (ROOT / "slurm" / "job.sh").read_text()
    functions = [
        re.search(rf"^{name}\(\) \{{(.*?^\}}|.*\}}$)", body, re.DOTALL | re.MULTILINE)[0]
        for name in ("ask_slurm", "job_field")
    ]
    lines = [
        "set -euo pipefail",
        "asked=$(mktemp)",
        "sleep() { :; }",
        'scontrol() { echo >>"$asked"',
        f'    (($(wc -l <"$asked") < {answers_at})) && return 1; echo "A=1 JobState=RUNNING B=2"; }}',
        *functions,
        "job=7",
        "state=$(job_field JobState)",
        'rm "$asked"',
        'echo "state $state"',
    ]
    found = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True)
    assert found.stdout == f"state {state}\n", found.stderr
