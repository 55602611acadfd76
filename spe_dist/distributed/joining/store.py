"""The store where the ranks of a launch meet.

A launcher ends the other ranks where one dies. Ranks that were started without one, by their environment variables
alone, would wait for each other as long as a collective may take. So they say that they are there, and a rank that is
missing for `start_timeout_s` ends the others, unless its process is seen on this machine: then it only is slow. A rank
of another machine may be slow without being seen, and has several times as long.

Two launchers do not end all others. `deepspeed` looks after ranks on its own machine only: those on several are as
without a launcher. `srun` ends its tasks for one that died only where it was given --kill-on-bad-exit. Slurm says which
tasks are of this machine: of these alone it is known that they have gone, and the others are told.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Container, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

from spe_dist.distributed.launch import LaunchEnvironment
from spe_dist.errors import TrainingFailure

LOOK_EVERY_S = 0.2
TELL_AFTER_S = 10.0
LOOK_FOR_PROCESSES_EVERY_S = 1.0
ELSEWHERE = 4  # times start_timeout_s that ranks of other machines have
JOINED, LOST = "spe/joined", "spe/lost"  # in the store: how many ranks are there, and which one never will be
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
        waiting.until(lambda: _answers(environment), lambda ranks: [rank for rank in ranks if rank == 0])
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
        store.add(JOINED, 1)
        waiting.store = store
        waiting.until(
            lambda: store.add(JOINED, 0) == environment.ranks,
            lambda ranks: [rank for rank in ranks if not store.check([_key(rank)])],
        )
    except dist.DistError as error:
        raise TrainingFailure("rank 0 has ended while the ranks were starting; its own last lines may tell") from error
    return store


def has_launcher(environment: LaunchEnvironment, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a launcher ends all other ranks when one has died."""
    on_one_machine = environment.local_ranks == environment.ranks
    return (environment.launcher == "deepspeed" and on_one_machine) or bool(environ.get("TORCHELASTIC_RUN_ID"))


class Waiting:
    """Patience with ranks that have not come yet."""

    def __init__(self, environment: LaunchEnvironment, timeout_s: float, start_timeout_s: float) -> None:
        self.environment = environment
        self.began = time.monotonic()
        self.timeout_s = timeout_s
        self.start_timeout_s = min(start_timeout_s, timeout_s)
        self.store: Any = None  # once it is there
        self._told = environment.rank != 0  # one rank says so
        self._looked = 0.0  # when processes were last looked for

    def until(self, done: Callable[[], bool], missing: Callable[[Iterable[int]], list[int]]) -> None:
        """Wait until `done`; `missing`: which of some ranks have not come.

        Raises TrainingFailure where one is missing of which no process is seen, here or by another rank.
        """
        everybody = range(self.environment.ranks)
        while not done():
            now = time.monotonic()
            if self.store is not None and self.store.check([LOST]):
                raise TrainingFailure(self.store.get(LOST).decode())
            if now - self.began > TELL_AFTER_S and not self._told:
                self._told = True
                print(f"waiting for {_named(missing(everybody))} to start", flush=True)
            if now - self.began > self.start_timeout_s and now - self._looked > LOOK_FOR_PROCESSES_EVERY_S:
                self._looked = now
                self._check(missing)
            if now - self.began > self.timeout_s:
                absent = _named(missing(everybody))
                raise TrainingFailure(f"{absent} did not join within timeout_s={self.timeout_s:g}; look why")
            time.sleep(LOOK_EVERY_S)

    def _check(self, missing: Callable[[Iterable[int]], list[int]]) -> None:
        here, waited_s = running_ranks(self.environment), time.monotonic() - self.began
        lost = [rank for rank in missing(self._judged(here, waited_s)) if rank not in here]
        if lost:
            text = (
                f"{_named(lost)} did not start within {waited_s:.0f} s, and no process of it runs on "
                f"{self.environment.node}: it was killed or never started. Start all ranks again, with a higher "
                "start_timeout_s where they begin that far apart"
            )
            if self.store is not None:
                self.store.set(LOST, text)
            raise TrainingFailure(text)

    def _judged(self, here: Container[int], waited_s: float) -> Iterable[int]:
        """The ranks that are lost where no process of them is seen. On another machine one may only be slow."""
        place = self.environment
        if place.launcher == "slurm":
            return tasks_here() if place.rank in here else ()  # who cannot see itself sees nobody
        if place.local_ranks == place.ranks or waited_s > ELSEWHERE * self.start_timeout_s:
            return range(place.ranks)
        first = place.rank - place.local_rank  # the ranks of a machine follow each other
        return range(first, first + place.local_ranks)


def tasks_here(environ: Mapping[str, str] = os.environ) -> set[int]:
    """The ranks that Slurm has started on this machine; none where it does not say."""
    return {int(task) for task in environ.get("SLURM_GTIDS", "").split(",") if task.isdecimal()}


def running_ranks(
    environment: LaunchEnvironment, processes: Path = PROCESSES, environ: Mapping[str, str] = os.environ
) -> set[int]:
    """The ranks of this launch whose processes run on this machine, as far as we may look."""
    number, own = "RANK", {"MASTER_ADDR": environment.master_addr, "MASTER_PORT": str(environment.master_port)}
    own["WORLD_SIZE"] = str(environment.ranks)
    if environment.launcher == "slurm":
        number, own = "SLURM_PROCID", {name: environ.get(name, "") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID")}
    found = set()
    for process in processes.glob("[0-9]*"):
        try:
            pairs = (process / "environ").read_bytes().split(b"\0")
        except OSError:  # another user's, or it has just ended; that of one that only waits to be reaped is empty
            continue
        given = dict(pair.decode(errors="replace").partition("=")[::2] for pair in pairs)
        if own.items() <= given.items() and given.get(number, "").isdigit():
            found.add(int(given[number]))
    return found


def _answers(environment: LaunchEnvironment) -> bool:
    try:
        with socket.create_connection((environment.master_addr, environment.master_port), timeout=5):
            return True
    except OSError:
        return False


def _key(rank: int) -> str:
    return f"spe/joined/{rank}"


def _named(ranks: Iterable[int]) -> str:
    ranks = list(ranks)
    listed = ", ".join(map(str, ranks[:8])) + (", ..." if len(ranks) > 8 else "")
    return f"rank{'s' if len(ranks) > 1 else ''} {listed}"
