"""Losses that jump: compared with those of the steps before."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

RECENT_STEPS = 64
ENOUGH_STEPS = 16  # before that many nothing is usual yet


class SpikeWatch:
    """Says whether the loss of a step is more than `factor` times the median of those before it; 0: never."""

    def __init__(self, factor: float, recent_losses: Iterable[float] = ()) -> None:
        self.factor = factor
        self._losses = deque(recent_losses, maxlen=RECENT_STEPS)

    def usual_loss(self, row: Mapping[str, Any]) -> float | None:
        """The median that the loss of a finished row is far above; None where it is not, and is counted from then on.

        Rows of skipped steps are passed over.
        """
        if not self.factor or not row["applied"]:
            return None
        if len(self._losses) >= ENOUGH_STEPS and row["loss"] > self.factor * (usual := median(self._losses)):
            return usual
        self._losses.append(row["loss"])
        return None
