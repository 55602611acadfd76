"""What a process says of its memory."""

from __future__ import annotations

import os
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


STAGE_3 = """
import torch
from spe_dist.utils.memory import map_tensors_of_stage_3, release_free_memory, resident_bytes, tune_memory
tune_memory()
{call}
tensors = [torch.ones(5 << 18) for _ in range(40)]  # of 5 MiB
before = resident_bytes()
del tensors
print(before - resident_bytes() >> 20, {then})
"""


def freed_mib(call, then="0", **environment):
    program = STAGE_3.format(call=call, then=then)
    command = [sys.executable, "-c", program]
    found = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, check=True, env={**os.environ, **environment}
    )
    return [int(number) for number in found.stdout.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_tensors_that_stage_3_frees_go_back_to_the_kernel_and_those_of_other_stages_stay_for_the_next_step():
    assert freed_mib("")[0] < 20
    assert freed_mib("assert map_tensors_of_stage_3()")[0] >= 180
    assert freed_mib("assert not map_tensors_of_stage_3()", MALLOC_MMAP_THRESHOLD_="33554432")[0] < 20


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_what_a_start_leaves_free_in_the_heap_goes_back_to_the_kernel():
    kept, left = freed_mib("", then="(release_free_memory(), before - resident_bytes() >> 20)[1]")
    assert kept < 20 and left >= 180
