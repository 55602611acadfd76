"""Runs under `deepspeed` and `torchrun` on this machine."""

from __future__ import annotations

import contextlib
import os
import signal

import psutil

from tests.faults.attempts import Attempt
from tests.faults.case import NOTICED_S, Case
from tests.faults.kinds.drawing import any_setup, draw_trap, kind, wait_s, wait_until

ANY: set[int] = set()  # a launcher's own status says little


def kill_under(case: Case, launcher: str) -> None:
    """A rank is killed: the launcher ends, and with it all others."""
    case.setup, case.launcher = any_setup(case.rng), launcher
    attempt = case.start(draw_trap(case, case.rng.choice(["start-up", "step", "saving", "rows", "files"])))
    case.expect_end(attempt, ANY)
    case.fired(attempt)
    case.finish()


def terminate_under(case: Case, launcher: str) -> None:
    """TERM to the launcher, which passes it on: all save and leave."""
    case.setup, case.launcher = any_setup(case.rng), launcher
    attempt = case.start()
    wait_until(attempt, lambda: len(attempt.pids()) == case.setup.ranks or attempt.poll())
    wait_s(attempt, case.rng.uniform(0.0, 8.0))
    for process in whoever_passes_signals_on(attempt):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)
    case.fault_from_outside("TERM to the launcher")
    case.expect_end(attempt, ANY)
    case.finish()


def whoever_passes_signals_on(attempt: Attempt) -> list[psutil.Process]:
    """torchrun itself; of deepspeed the process that has started the ranks."""
    parents = set()
    for pid in attempt.pids().values():
        with contextlib.suppress(psutil.NoSuchProcess):
            parents.add(psutil.Process(pid).parent())
    return [parent for parent in parents if parent is not None and parent.pid != os.getpid()]


def kill_launcher(case: Case, launcher: str) -> None:
    """The launcher is killed and its ranks go on; a new start takes the folder over, and they end by themselves."""
    case.setup, case.launcher = any_setup(case.rng), launcher
    attempt = case.start()
    wait_until(attempt, lambda: case.steps_done() >= 1 or attempt.poll())
    for process in [*whoever_passes_signals_on(attempt), psutil.Process(attempt.processes["launcher"].pid)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    case.fault_from_outside("launcher killed")
    attempt.wait(NOTICED_S)
    case.finish(leftovers=False)
    case.check_nothing_left()


for _launcher in ("deepspeed", "torchrun"):
    kind(f"under {_launcher} a rank is killed")(lambda case, launcher=_launcher: kill_under(case, launcher))
    kind(f"{_launcher} is asked to end")(lambda case, launcher=_launcher: terminate_under(case, launcher))
    kind(f"{_launcher} is killed, its ranks are not")(lambda case, launcher=_launcher: kill_launcher(case, launcher))
