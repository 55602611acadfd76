"""What all ranks decide together between steps: to stop, to write a checkpoint by the clock, that one is written."""

from __future__ import annotations

import time
from typing import Protocol

from spe_dist.distributed.context import RankContext
from spe_dist.training.background_save import BackgroundSave


class Stop(Protocol):
    """Whether this rank was asked to stop, and by what."""

    @property
    def requested(self) -> bool: ...

    @property
    def reason(self) -> str: ...


class Agreement:
    """Asks all ranks at the end of a micro-batch: was any asked to stop, does rank 0 want a checkpoint by its clock, is
    one still written in the background?
    """

    def __init__(
        self,
        context: RankContext,
        stop: Stop,
        checkpoint_every_minutes: float,
        background: BackgroundSave | None = None,
    ) -> None:
        self.context = context
        self.stop_request = stop
        self.every_s = checkpoint_every_minutes * 60
        self.stop = False
        self.checkpoint_due = False
        self.background = background
        self.save_ended = False  # on all ranks, or on one with an error
        self.saved_at = time.monotonic()

    def __call__(self) -> bool:
        """Whether all ranks stop now; a collective."""
        due = self.context.is_main and self.every_s > 0 and time.monotonic() - self.saved_at >= self.every_s
        running, failed = (0, 0) if self.background is None else (self.background.running, self.background.failed)
        asked = self.stop_request.requested, due, running, failed
        stop, checkpoint, running, failed = map(bool, self.context.max_numbers(asked))
        self.stop, self.checkpoint_due, self.save_ended = stop, checkpoint, failed or not running
        return self.stop

    def saved(self) -> None:
        """A checkpoint is written, or begun to be."""
        self.saved_at, self.checkpoint_due, self.save_ended = time.monotonic(), False, False
