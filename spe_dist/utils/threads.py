"""How threads of OpenMP, which torch computes with on a CPU, wait for each other.

A kernel ends when its slowest thread does. By default the others spin until then, which saves some microseconds where
each has a core of its own. Beside other processes (neighbours on the machine, further ranks) they burn what the
slowest one is waiting for, and everything becomes many times slower. Waiting asleep costs little and is the default of
all commands here.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path

WAIT_POLICY = "OMP_WAIT_POLICY"
SETTINGS_OF_WAITING = (
    WAIT_POLICY,
    "GOMP_SPINCOUNT",
    "KMP_BLOCKTIME",
)  # of the standard, of GNU's and of Intel's library
THREADS = "OMP_NUM_THREADS"


def wait_asleep(environ: MutableMapping[str, str] = os.environ) -> None:
    """Have OpenMP's threads sleep while they wait, unless the user has chosen. OpenMP reads it when torch is loaded."""
    if not any(name in environ for name in SETTINGS_OF_WAITING):
        environ[WAIT_POLICY] = "PASSIVE"


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
