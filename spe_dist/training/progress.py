"""How a run is going: the one line that shows it, and the pace that its time left follows from.

The line is rewritten in a terminal; in a log file there is a new one now and then.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, TextIO

from spe_dist.training.health.stragglers import SlowRank

LOG_FILE_SECONDS = 15.0
RECENT_STEPS = 100


class ProgressLine:
    """Prints step, losses, sentences/s and time left."""

    def __init__(
        self,
        total_steps: int,
        stream: TextIO | None = None,
        enabled: bool = True,
        terms: Sequence[str] = ("tbo", "spo", "cspo"),
    ) -> None:
        self.total_steps = total_steps
        self.terms = terms
        self.stream = stream if stream is not None else sys.stdout
        self.enabled = enabled
        self.live = self.stream.isatty()
        self._printed_at = 0.0
        self._width = 0

    def show(
        self, row: dict[str, Any], sentences_per_s: float, seconds_left: float, slow: SlowRank | None = None
    ) -> None:
        """Show a finished row of metrics, and the rank that holds the others up."""
        now = time.monotonic()
        last = row["step"] >= self.total_steps
        if not self.enabled or (not self.live and not last and now - self._printed_at < LOG_FILE_SECONDS):
            return
        self._printed_at = now
        text = f"step {row['step']:,}/{self.total_steps:,}  loss {row['loss']:.4f}"
        for name in self.terms:
            if f"{name}_loss" in row:
                text += f"  {name} {row[f'{name}_loss']:.3f}"
        if row.get("queue_fill", 0) > row["sentences"]:  # else no query has met a negative yet
            text += f"  top-1 {row['contrastive_top1']:.1%}"
        text += f"  {sentences_per_s:,.0f} sentences/s  {duration(seconds_left)} left"
        if row["skipped_steps"]:
            text += f"  {row['skipped_steps']} skipped"
        if slow is not None:
            text += f"  rank {slow.rank} {slow.times:.1f}x the median"
        if self.live:
            self.stream.write("\r" + text.ljust(self._width))
            self._width = len(text)
        else:
            self.stream.write(text + "\n")
        self.stream.flush()

    def say(self, text: str) -> None:
        """Print a line of its own."""
        if not self.enabled:
            return
        self.end_line()
        print(text, file=self.stream, flush=True)

    def end_line(self) -> None:
        """Leave the rewritten line."""
        if self.live and self._width:
            self.stream.write("\n")
            self._width = 0


class Pace:
    """How long steps take: the mean of the recent ones, and in proportion all that has come between steps.

    Evaluations and checkpoints come once in so many steps, so their time is spread over the steps of this process. Its
    first step (compilation, cold caches) and what follows that (the trial checkpoint) come once and are left out.
    """

    def __init__(self) -> None:
        self._recent_s: deque[float] = deque(maxlen=RECENT_STEPS)
        self._steps = 0
        self._between_s = 0.0
        self._ended_at = 0.0

    def step_ended(self, seconds: float) -> None:
        """A step that took so many seconds ends now."""
        now = time.monotonic()
        if self._steps == 1:
            self._recent_s.clear()
        elif self._steps > 1:
            self._between_s += now - seconds - self._ended_at
        self._recent_s.append(seconds)
        self._steps += 1
        self._ended_at = now

    def seconds_for(self, steps: int) -> float:
        """What so many further steps are expected to take; after one step only that is known."""
        between_s = self._between_s / max(1, self._steps - 2)
        return steps * (sum(self._recent_s) / len(self._recent_s) + between_s)


def duration(seconds: float) -> str:
    """`2h05m`, `3m20s` or `12s`."""
    whole = max(0, round(seconds))
    if whole >= 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 60}m{whole % 60:02d}s" if whole >= 60 else f"{whole}s"
