"""The state of a checkpoint as a run takes it: every value of the kind that it is written as.

Checksums tell of damage, not of a file that was written by something else. A checkpoint whose state does not hold is
passed over like a damaged one, so that an older one is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from spe_dist.distributed.checkpoint import Checkpoints, read_state
from spe_dist.utils.reading.json_file import is_number, is_whole, shown
from spe_dist.utils.run_files import STATE_FILE

Kind = tuple[Callable[[Any], bool], str]
COUNT: Kind = (is_whole, "a whole number")
SECONDS: Kind = (lambda value: is_number(value, low=0), "a number of seconds")
SCORE: Kind = (is_number, "a number")
TEXT: Kind = (lambda value: isinstance(value, str), "text")
COUNTS: Kind = (lambda value: isinstance(value, list) and all(map(is_whole, value)), "a list of whole numbers")

POSITION = {
    "step": COUNT,
    "applied_steps": COUNT,
    "skipped_steps": COUNT,
    "skipped_in_a_row": COUNT,
    "trained_s": SECONDS,
}
PARTS: dict[str, dict[str, Kind]] = {  # those that a state may have
    "data": {
        "sentences_consumed": COUNT,
        "global_batch": COUNT,
        "streams": COUNT,
        "seed": COUNT,
        "manifest_hash": TEXT,
    },
    "best": {"epoch": COUNT, "score": SCORE, "evaluated_epoch": COUNT, "worse_evaluations": COUNT},
    "left_out": {"sentences": COUNTS, "steps": COUNTS, "replaced": COUNT},
}


def problem_of_state(state: Mapping[str, Any]) -> str | None:
    """The first value that is missing or of another kind than a run writes, in words; None where there is none."""
    problem = _first_problem(state, POSITION, "")
    for name, kinds in PARTS.items():
        if problem is None and name in state:
            part = state[name]
            problem = (
                f"{name} is {shown(part)}" if not isinstance(part, dict) else _first_problem(part, kinds, f"{name}.")
            )
    return problem


def _first_problem(values: Mapping[str, Any], kinds: Mapping[str, Kind], prefix: str) -> str | None:
    for name, (fits, kind) in kinds.items():
        if name not in values:
            return f"{prefix}{name} is missing"
        if not fits(values[name]):
            return f"{prefix}{name} is {shown(values[name])}, not {kind}"
    return None


class RunCheckpoints(Checkpoints):
    """The checkpoints of a training run: whole ones have a state that it can continue from."""

    def problem_of(self, path: Path) -> str | None:
        """Why a checkpoint cannot be used; None where its files are as written and its state holds."""
        problem = super().problem_of(path)
        if problem is not None:
            return problem
        problem = problem_of_state(self.context.run_on_main(lambda: read_state(path)))
        return None if problem is None else f"{STATE_FILE}: {problem}"
