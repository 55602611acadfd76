"""What all ranks decide together between steps: to stop, to write a checkpoint by the clock."""

from __future__ import annotations

import time
from typing import Protocol

from spe_dist.distributed.context import RankContext


class Stop(Protocol):
    """Whether this rank was asked to stop, and by what."""

    @property
    def requested(self) -> bool: ...

    @property
    def reason(self) -> str: ...


class Agreement:
    """Asks all ranks at the end of a micro-batch: was any asked to stop, does rank 0 want a checkpoint by its clock?"""

    def __init__(self, context: RankContext, stop: Stop, checkpoint_every_minutes: float) -> None:
        self.context = context
        self.stop_request = stop
        self.every_s = checkpoint_every_minutes * 60
        self.stop = False
        self.checkpoint_due = False
        self.saved_at = time.monotonic()

    def __call__(self) -> bool:
        """Whether all ranks stop now; a collective."""
        due = self.context.is_main and self.every_s > 0 and time.monotonic() - self.saved_at >= self.every_s
        stop, checkpoint = self.context.max_numbers([self.stop_request.requested, due])
        self.stop, self.checkpoint_due = bool(stop), bool(checkpoint)
        return self.stop

    def saved(self) -> None:
        self.saved_at, self.checkpoint_due = time.monotonic(), False
