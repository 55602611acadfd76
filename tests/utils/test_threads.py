"""How OpenMP's threads wait, and whether the user has chosen their number."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from project import ROOT

from spe_dist.utils.threads import spin_briefly, threads_are_chosen


def test_threads_spin_briefly_unless_the_user_chose_otherwise():
    environ: dict[str, str] = {}
    spin_briefly(environ)
    assert environ == {"GOMP_SPINCOUNT": "1000"}
    for given in ({"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "20"}, {"KMP_BLOCKTIME": "200"}):
        environ = dict(given)
        spin_briefly(environ)
        assert environ == given


def test_a_command_sets_the_policy_before_torch_is_loaded():
    program = (
        "import os, sys\n"
        "from spe_dist.cli import exits\n"
        "import spe_dist.cli.finetune, spe_dist.cli.predict, spe_dist.cli.pretrain, spe_dist.cli.main\n"
        "assert 'torch' not in sys.modules\n"
        "exits.run_training(lambda: print(os.environ['GOMP_SPINCOUNT']) or 0)\n"
        "exits.run_command(lambda: print(os.environ['GOMP_SPINCOUNT']))\n"
    )
    environ = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    out = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environ, text=True, capture_output=True)
    assert out.stdout == "1000\n1000\n", out.stderr


def run_below(given: dict[str, str], program: str) -> str:
    """The output of a program whose parent was started with `given` and sets OMP_NUM_THREADS=1, as torchrun does."""
    parent = (
        "import os, subprocess, sys\n"
        "os.environ['OMP_NUM_THREADS'] = '1'\n"
        f"print(subprocess.run([sys.executable, '-c', {program!r}], text=True, capture_output=True).stdout)"
    )
    environ = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"} | given
    return subprocess.run(
        [sys.executable, "-c", parent], cwd=ROOT, env=environ, text=True, check=True, stdout=subprocess.PIPE
    ).stdout.strip()


@pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="needs Linux")
def test_the_one_thread_of_torchrun_is_not_the_users_choice():
    program = "from spe_dist.utils.threads import threads_are_chosen; print(threads_are_chosen())"
    assert run_below({"TORCHELASTIC_RUN_ID": "1"}, program) == "False"
    assert run_below({"TORCHELASTIC_RUN_ID": "1", "OMP_NUM_THREADS": "1"}, program) == "True"
    assert run_below({}, program) == "True"
    assert not threads_are_chosen({})
    assert threads_are_chosen({"TORCHELASTIC_RUN_ID": "1", "OMP_NUM_THREADS": "4"})
