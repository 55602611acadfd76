"""How threads of OpenMP, which torch computes with on a CPU, wait for each other.

A kernel ends when its slowest thread does. By default the others spin until then, which saves some microseconds where
each has a core of its own. Beside other processes (neighbours on the machine, further ranks) they burn what the
slowest one is waiting for, and everything becomes several times slower. Never spinning costs a quarter of the speed of
training where nothing else runs; spinning for some microseconds before they sleep costs nothing there and keeps most of
what sleeping gives beside others. So it is the default of all commands here (RESULTS, Training beside other processes).
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path

WAIT_POLICY = "OMP_WAIT_POLICY"
SPIN_COUNT = "GOMP_SPINCOUNT"
SHORT_SPIN = 1_000  # rounds; without it 300,000, with OMP_WAIT_POLICY=PASSIVE none
SETTINGS_OF_WAITING = (
    WAIT_POLICY,
    SPIN_COUNT,
    "KMP_BLOCKTIME",
)  # of the standard, of GNU's and of Intel's library
THREADS = "OMP_NUM_THREADS"


def spin_briefly(environ: MutableMapping[str, str] = os.environ) -> None:
    """Have OpenMP's threads sleep soon when they wait, unless the user has chosen how they wait.

    Call it before torch is loaded: GNU's OpenMP, which torch for Linux is built with, reads it then.
    """
    if not any(name in environ for name in SETTINGS_OF_WAITING):
        environ[SPIN_COUNT] = str(SHORT_SPIN)


def threads_are_chosen(environ: MutableMapping[str, str] = os.environ) -> bool:
    """Whether the user has set OMP_NUM_THREADS.

    torchrun sets it to 1 for several ranks where the user has not, however many cores there are; then it is missing
    in the environment that torchrun, this process's parent, was started with.
    """
    if THREADS not in environ:
        return False
    if "TORCHELASTIC_RUN_ID" not in environ or environ[THREADS] != "1":
        return True
    try:
        given = Path(f"/proc/{os.getppid()}/environ").read_bytes()
    except OSError:  # another system
        return True
    return any(entry.startswith(f"{THREADS}=".encode()) for entry in given.split(b"\0"))
