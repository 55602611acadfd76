"""The store where the ranks of a launch meet.

A launcher ends the other ranks where one dies. Ranks that were started without one, by their environment variables
alone, would wait for each other as long as a collective may take. So they say that they are there, and a rank that is
missing for `start_timeout_s` ends the others, unless its process is seen on this machine: then it only is slow.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

from spe_dist.distributed.launch import LaunchEnvironment
from spe_dist.errors import TrainingFailure

LOOK_EVERY_S = 0.2
TELL_AFTER_S = 10.0
PROCESSES = Path("/proc")


def open_store(environment: LaunchEnvironment, timeout_s: float, start_timeout_s: float) -> Any:
    """torch's store, on rank 0 of the launch or in torchrun's agent; all ranks have joined it then.

    Raises:
        TrainingFailure: a rank that no launcher looks after has not come.
        torch.distributed.DistNetworkError: rank 0's port is taken, or nobody answers there.
    """
    if environment.ranks == 1 or has_launcher(environment):
        rendezvous = dist.rendezvous(
            "env://", environment.rank, environment.ranks, timeout=timedelta(seconds=timeout_s)
        )
        return next(rendezvous)[0]
    waiting = Waiting(environment, timeout_s, start_timeout_s)
    if environment.rank:
        waiting.until(lambda: [] if _answers(environment) else [0])
    store = dist.TCPStore(
        environment.master_addr,
        environment.master_port,
        environment.ranks,
        is_master=environment.rank == 0,
        timeout=timedelta(seconds=timeout_s),
        wait_for_workers=False,
    )
    try:
        store.set(_key(environment.rank), "")
        missing = [rank for rank in range(environment.ranks) if rank != environment.rank]
        waiting.until(lambda: _still_missing(store, missing))
    except dist.DistError as error:
        raise TrainingFailure("rank 0 has ended while the ranks were starting; its own last lines may tell") from error
    return store


def has_launcher(environment: LaunchEnvironment, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a launcher ends the other ranks when one has died."""
    return environment.launcher != "torchrun" or bool(environ.get("TORCHELASTIC_RUN_ID"))


class Waiting:
    """Patience with ranks that have not come yet."""

    def __init__(self, environment: LaunchEnvironment, timeout_s: float, start_timeout_s: float) -> None:
        self.environment = environment
        self.began = time.monotonic()
        self.timeout_s = timeout_s
        self.start_timeout_s = min(start_timeout_s, timeout_s)
        self._told = environment.rank != 0  # one rank says so

    def until(self, missing: Callable[[], list[int]]) -> None:
        """Wait until no rank is missing. Raises TrainingFailure where one is and no process of it is seen."""
        while absent := missing():
            waited_s = time.monotonic() - self.began
            if waited_s > TELL_AFTER_S and not self._told:
                self._told = True
                print(f"waiting for {_named(absent)} to start", flush=True)
            if waited_s > self.start_timeout_s:
                self._check(absent, waited_s)
            time.sleep(LOOK_EVERY_S)

    def _check(self, absent: list[int], waited_s: float) -> None:
        here = running_ranks(self.environment)
        lost = [rank for rank in absent if rank not in here]
        if lost:
            raise TrainingFailure(
                f"{_named(lost)} did not start within {self.start_timeout_s:g} s, and no process of it runs on "
                f"{self.environment.node}: it was killed or never started. Start all ranks again, with a higher "
                "start_timeout_s where they begin that far apart"
            )
        if waited_s > self.timeout_s:
            raise TrainingFailure(f"{_named(absent)} did not join within timeout_s={self.timeout_s:g}; look why")


def running_ranks(environment: LaunchEnvironment, processes: Path = PROCESSES) -> set[int]:
    """The ranks of this launch whose processes run on this machine, as far as we may look."""
    own = {"MASTER_ADDR": environment.master_addr, "MASTER_PORT": str(environment.master_port)}
    own["WORLD_SIZE"] = str(environment.ranks)
    found = set()
    for process in processes.glob("[0-9]*"):
        try:
            pairs = (process / "environ").read_bytes().split(b"\0")
        except OSError:  # another user's, or it has just ended; that of one that only waits to be reaped is empty
            continue
        given = dict(pair.decode(errors="replace").partition("=")[::2] for pair in pairs)
        if own.items() <= given.items() and given.get("RANK", "").isdigit():
            found.add(int(given["RANK"]))
    return found


def _answers(environment: LaunchEnvironment) -> bool:
    try:
        with socket.create_connection((environment.master_addr, environment.master_port), timeout=5):
            return True
    except OSError:
        return False


def _still_missing(store: Any, ranks: list[int]) -> list[int]:
    """Those that have not joined; they are looked for in order, so that few questions are asked."""
    while ranks and store.check([_key(ranks[0])]):
        del ranks[0]
    return [rank for rank in ranks if not store.check([_key(rank)])]


def _key(rank: int) -> str:
    return f"spe/joined/{rank}"


def _named(ranks: Iterable[int]) -> str:
    ranks = list(ranks)
    listed = ", ".join(map(str, ranks[:8])) + (", ..." if len(ranks) > 8 else "")
    return f"rank{'s' if len(ranks) > 1 else ''} {listed}"
