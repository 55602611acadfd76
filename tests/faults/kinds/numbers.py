"""Gradients and weights that are no finite numbers."""

from __future__ import annotations

import json
import math

from spe_dist.cli.exits import DONE, UNSTABLE
from spe_dist.training.metrics import read_rows
from tests.faults.attempts import Attempt, FaultError
from tests.faults.case import RUN_S, Case
from tests.faults.injection import Trap
from tests.faults.kinds.drawing import any_setup, kind


def disturb(case: Case, at: str, do: str, *given: str) -> Attempt:
    """Start a run in which one call of the engine on one rank is spoiled."""
    case.setup = any_setup(case.rng)
    at = f"spe_dist.distributed.engine:TrainingEngine.{at}"
    rank = case.rng.randrange(case.setup.ranks)
    times = case.runs.reference(case.setup).counts[rank][at]
    return case.start(Trap(rank, at, case.rng.randint(1, times), do), given=given)


@kind("a gradient is not finite")
def spoil_loss(case: Case) -> None:
    """The loss of one micro-batch is NaN where the backward pass begins: that step alone is skipped, on all ranks.

    A run whose last step is skipped does not count as finished: it fails, and the next start makes that step.
    """
    attempt = disturb(case, "backward", "spoil loss")
    attempt.wait(RUN_S)
    case.fired(attempt)
    rows = read_rows(case.output / "metrics.jsonl", "train")
    skipped = [row["step"] for row in rows if not row["applied"]]
    reference = case.runs.reference(case.setup)
    if skipped == [reference.steps]:
        case.check_statuses(attempt, {UNSTABLE})
        case.finish()
        return
    case.check_statuses(attempt, {DONE})
    if len(skipped) != 1 or not all(math.isfinite(row["loss"]) for row in rows):
        raise FaultError(f"skipped steps {skipped}, losses {[row['loss'] for row in rows]}")
    case.compare(until=skipped[0])


@kind("a weight is not finite")
def spoil_weights(case: Case) -> None:
    """The run ends by itself with its own status, says where, and no checkpoint has any of it."""
    attempt = disturb(case, "__call__", "spoil weights", "--max_skipped_steps=2")
    case.expect_end(attempt, {UNSTABLE})
    case.fired(attempt)
    row = json.loads((case.output / "failures.jsonl").read_text().splitlines()[-1])
    ids = attempt.notes("ids")
    trained = [next(line["ids"] for line in ids[rank] if line["step"] == row["step"] - 1) for rank in sorted(ids)]
    if row["sentence_ids"] != trained:
        raise FaultError(
            f"failures.jsonl has sentences {row['sentence_ids']} for step {row['step']}, trained {trained}"
        )
    case.finish()
