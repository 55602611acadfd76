"""The list of kinds, and what several of them draw and wait for."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

from tests.faults.attempts import POLL_S, Attempt, FaultError
from tests.faults.case import RUN_S, Case
from tests.faults.injection import Trap
from tests.faults.moments import MOMENTS
from tests.faults.runs import Setup

Kind = Callable[[Case], None]
KINDS: dict[str, Kind] = {}


def kind(name: str) -> Callable[[Kind], Kind]:
    def add(function: Kind) -> Kind:
        KINDS[name] = function
        return function

    return add


def any_setup(rng: random.Random) -> Setup:
    """Mostly pre-training."""
    program = rng.choice(["pretrain", "pretrain", "pretrain", "finetune"])
    stage = rng.choice([1, 2, 2, 3])
    given: tuple = ()
    if program == "pretrain":
        given = rng.choice([(), (), (), (("loader_workers", 1),), (("queue", "sharded"),)])
    if rng.random() < 0.2:
        given = (*given, ("background_saving", "false"))
    return Setup(program, stage=stage, given=given)


def draw_trap(case: Case, part: str, do: str = "kill", ranks: tuple[int, ...] | None = None) -> Trap:
    """A trap at a moment of this part of the run that the undisturbed run comes by."""
    counts = case.runs.reference(case.setup).counts
    reached = [
        (rank, at, counts[rank][at])
        for rank in sorted(counts)
        if ranks is None or rank in ranks
        for at in MOMENTS[case.setup.program][part]
        if counts[rank].get(at)
    ]
    rank, at, times = case.rng.choice(reached)
    return Trap(rank, at, case.rng.randint(1, times), do)


def wait_s(attempt: Attempt, seconds: float) -> None:
    """Wait while the run goes on."""
    deadline = time.monotonic() + seconds
    wait_until(attempt, lambda: time.monotonic() >= deadline or attempt.poll())


def wait_until(attempt: Attempt, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + RUN_S
    while not condition():
        if time.monotonic() > deadline:
            raise FaultError(f"what was waited for did not happen in {RUN_S:g} s")
        time.sleep(POLL_S)


def continue_after(attempt: Attempt, rank: int, seconds: float) -> None:
    """Send SIGCONT to a rank that a trap has stopped so long ago."""
    fired = attempt.notes("fired").get(rank)
    if fired and time.time() - fired[0]["time"] >= seconds:
        attempt.signal(rank, signal.SIGCONT)
