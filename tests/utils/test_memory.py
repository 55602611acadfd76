"""What a process says of its memory."""

from __future__ import annotations

import subprocess
import sys

import pytest
from project import ROOT

CHILD = "from spe_dist.utils.memory import peak_resident_bytes, resident_bytes; print(peak_resident_bytes() >> 20)"
PARENT = f"""
import subprocess, sys
from spe_dist.utils.memory import peak_resident_bytes, resident_bytes
before = resident_bytes()
large = b"x" * (300 << 20)
held = resident_bytes() - before
del large
print(held >> 20, peak_resident_bytes() - before >> 20, resident_bytes() - before >> 20, flush=True)
subprocess.run([sys.executable, "-c", {CHILD!r}], check=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_counts_its_own_peak_and_not_that_of_the_program_which_started_it():
    done = subprocess.run([sys.executable, "-c", PARENT], capture_output=True, text=True, cwd=ROOT, check=True)
    held, peak, left, of_child = map(int, done.stdout.split())
    assert 295 <= held <= 310 and peak >= 295 and left < 50
    assert of_child < 150
