"""Commands that are started from here: ended with all that they started."""

from __future__ import annotations

import subprocess
import sys

import psutil

from spe_dist.utils.commands import kill_with_descendants

PROGRAM = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""


def test_a_command_ends_with_what_it_started_in_sessions_of_their_own():
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) as process:
        child = psutil.Process(int(process.stdout.readline()))
        kill_with_descendants(process.pid)
        assert process.wait(30) == -9
    psutil.wait_procs([child], timeout=30)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    kill_with_descendants(process.pid)  # which is gone
