"""Ranks that stand still, wake up too late, or are asked to stop."""

from __future__ import annotations

import signal

from spe_dist.cli.exits import DONE, FAILED, USER_ERROR
from tests.faults.case import ENDED_BY_SIGNALS, NOTICED_S, RUN_S, STOPPED_OR_DONE, Case
from tests.faults.kinds.drawing import any_setup, continue_after, draw_trap, kind, wait_s, wait_until
from tests.faults.runs import Setup


@kind("a rank stands still for a while")
def pause(case: Case) -> None:
    """It is stopped by SIGSTOP and continued: the run must end as if nothing had been."""
    case.setup = any_setup(case.rng)
    part = case.rng.choice(["start-up", "step", "saving", "evaluation", "rows", "files"])
    trap, pause_s = draw_trap(case, part, "pause"), case.rng.uniform(0.2, 3.0)
    attempt = case.start(trap)
    attempt.wait(RUN_S, lambda: continue_after(attempt, trap.rank, pause_s))
    case.fired(attempt)
    case.check_statuses(attempt, {DONE})
    case.compare()


@kind("a rank stands still beyond timeout_s")
def pause_too_long(case: Case) -> None:
    """The others give it up; continued, it ends too, and has written nothing into what was saved."""
    case.setup = any_setup(case.rng)
    trap = draw_trap(case, case.rng.choice(["step", "saving", "rows"]), "pause")
    attempt = case.start(trap, given=["--timeout_s=3"])
    attempt.wait(RUN_S, lambda: continue_after(attempt, trap.rank, 6.0))
    case.fired(attempt)
    case.check_statuses(attempt, {DONE, FAILED})
    case.check_nothing_left()
    case.finish()


@kind("the folder is taken over by another start")
def taken_over(case: Case) -> None:
    """A start that was believed dead wakes up after another one has gone on: it must not write."""
    case.setup = any_setup(case.rng)
    case.setup = Setup(case.setup.program, 1, 1, case.setup.given)
    trap = draw_trap(case, case.rng.choice(["step", "saving", "rows"]), "pause")
    sleeping = case.start(trap)
    wait_until(sleeping, lambda: bool(sleeping.notes("fired")) or sleeping.poll())
    case.fired(sleeping)
    case.finish(leftovers=False)
    sleeping.signal(trap.rank, signal.SIGCONT)
    sleeping.wait(NOTICED_S)
    case.check_statuses(sleeping, {DONE, FAILED, USER_ERROR})
    case.compare()


@kind("signals in bursts")
def burst(case: Case) -> None:
    case.setup = any_setup(case.rng)
    seconds = case.runs.reference(case.setup).seconds
    attempt = case.start()
    wait_s(attempt, case.rng.uniform(0.2, 1.0) * seconds)
    sent = []
    for _ in range(case.rng.randint(2, 8)):
        rank = case.rng.randrange(case.setup.ranks)
        number = case.rng.choice([signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR1, signal.SIGINT])
        attempt.signal(rank, number)
        sent.append(f"{number.name[3:]}>{rank}")
        wait_s(attempt, case.rng.choice([0.0, 0.01, 0.2]))
    case.fault_from_outside(" ".join(sent))
    case.expect_end(attempt, ENDED_BY_SIGNALS)
    case.finish()


@kind("asked to stop at a moment")
def ask_to_stop(case: Case) -> None:
    """Three signals at once inside saving, evaluation and so on: saved and ended with status 75, or finished."""
    case.setup = any_setup(case.rng)
    part = case.rng.choice(["step", "saving", "evaluation", "rows", "files"])
    attempt = case.start(draw_trap(case, part, "ask to stop"))
    case.expect_end(attempt, ENDED_BY_SIGNALS)
    case.fired(attempt)
    case.finish()


@kind("the file STOP")
def stop_file(case: Case) -> None:
    case.setup = any_setup(case.rng)
    step = case.rng.randint(1, 6)
    attempt = case.start()
    wait_until(attempt, lambda: case.steps_done() >= step or attempt.poll())
    (case.output / "STOP").touch()
    case.fault_from_outside(f"after step {step}")
    case.expect_end(attempt, STOPPED_OR_DONE)
    case.finish()
