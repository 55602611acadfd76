"""What is known of a step at which training went wrong: kept for the user in OUTPUT/failures.jsonl.

A row has the step (as metrics.jsonl counts them), the kind and a sentence on it, the first parameter, moment, average
or queue with numbers that are not finite or are far too large (null: none has), the ids of the batch's sentences by
rank, and what was done.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spe_dist.distributed.context import RankContext
from spe_dist.errors import UnstableTraining
from spe_dist.utils.run_files import FAILURES_FILE


class RecentBatches:
    """The sentences of the last steps on this rank: a step is found to be bad some steps later."""

    def __init__(self, steps: int) -> None:
        self._ids: deque[tuple[int, Sequence[int]]] = deque(maxlen=steps)

    def add(self, step: int, sentence_ids: Sequence[int]) -> None:
        self._ids.append((step, sentence_ids))

    def of(self, step: int) -> list[int]:
        """Their ids; none of a step that is no longer kept."""
        # After a roll-back a step is there twice: the later one counts.
        latest = next((ids for known, ids in reversed(self._ids) if known == step), [])
        return [int(i) for i in latest]


class FailureLog:
    """Writes OUTPUT/failures.jsonl."""

    def __init__(self, output: Path, context: RankContext) -> None:
        self.path = output / FAILURES_FILE
        self.context = context

    def write(
        self, failure: UnstableTraining, sentence_ids: Sequence[int], bad: str | None, **done: Any
    ) -> dict[str, Any]:
        """Add a row, and return it; a collective. `sentence_ids`: of this rank. `done`: what follows from it."""
        row = {
            "step": failure.step,
            "kind": failure.kind,
            "why": failure.why,
            "first_bad_parameter": bad,
            "sentence_ids": self.context.all_gather_object(list(sentence_ids)),
            **done,
        }
        self.context.run_on_main(lambda: self._append(row))
        return row

    def _append(self, row: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
