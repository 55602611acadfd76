"""Ranks that are killed: forks without a launcher, so that those that are left must notice by themselves."""

from __future__ import annotations

import signal
from dataclasses import replace

from tests.faults.case import ENDED_BY_KILL, Case
from tests.faults.injection import Trap
from tests.faults.kinds.drawing import any_setup, draw_trap, kind, wait_s
from tests.faults.moments import MOMENTS, RESTORING


def kill_at(case: Case, part: str, do: str = "kill") -> None:
    """Kill one rank at a moment; the others notice by themselves; go on."""
    case.setup = any_setup(case.rng)
    if part not in MOMENTS[case.setup.program]:
        case.setup = replace(case.setup, program="pretrain")
    attempt = case.start(draw_trap(case, part, do))
    case.expect_end(attempt, ENDED_BY_KILL)
    case.fired(attempt)
    case.finish()


for _part in ("start-up", "step", "average", "enqueue", "evaluation", "saving", "rows", "files"):
    kind(f"a rank is killed: {_part}")(lambda case, part=_part: kill_at(case, part))


@kind("all ranks are killed at once")
def kill_node(case: Case) -> None:
    kill_at(case, case.rng.choice(["step", "saving", "files", "rows"]), "kill node")


@kind("goes on with other ranks and stages")
def change_ranks(case: Case) -> None:
    """The cluster gives more ranks or fewer after the kill, at another stage; after the next kill the first again."""
    case.setup = any_setup(case.rng)
    attempt = case.start(draw_trap(case, case.rng.choice(["step", "saving", "rows"])))
    case.expect_end(attempt, ENDED_BY_KILL)
    case.fired(attempt)
    ranks = case.rng.choice([1, 4])
    other = replace(case.setup, ranks=ranks, stage=case.rng.choice([0, 1, 2, 3] if ranks == 1 else [1, 2, 3]))
    at = "spe_dist.distributed.engine:TrainingEngine.step"
    attempt = case.start(Trap(case.rng.randrange(ranks), at, case.rng.randint(2, 6)), resume=True, setup=other)
    case.expect_end(attempt, ENDED_BY_KILL)
    case.fired(attempt)
    case.moments.append(f"then {other.name}")
    case.finish(exact=False)


@kind("a rank is killed at a random time")
def kill_at_random_time(case: Case) -> None:
    case.setup = any_setup(case.rng)
    rank = case.rng.randrange(case.setup.ranks)
    after_s = case.rng.uniform(0.1, 1.0) * case.runs.reference(case.setup).seconds
    attempt = case.start()
    wait_s(attempt, after_s)
    attempt.signal(rank, signal.SIGKILL)
    case.fault_from_outside(f"rank {rank} after {after_s:.2f} s")
    case.expect_end(attempt, ENDED_BY_KILL)
    case.finish()


@kind("killed again and again while it resumes")
def kill_again(case: Case) -> None:
    case.setup = any_setup(case.rng)
    attempt = case.start(draw_trap(case, case.rng.choice(["step", "saving", "rows"])))
    case.expect_end(attempt, ENDED_BY_KILL)
    case.fired(attempt)
    for _ in range(5):
        trap = draw_trap(case, case.rng.choice(list(MOMENTS[case.setup.program])))
        trap = replace(trap, count=1 + trap.count % 4)  # soon: less is left of a resumed run
        if case.rng.random() < 0.4:
            trap = Trap(case.rng.randrange(case.setup.ranks), case.rng.choice(RESTORING))
        attempt = case.start(trap, resume=True)
        case.expect_end(attempt, ENDED_BY_KILL)
        case.fired(attempt)
    case.finish()
