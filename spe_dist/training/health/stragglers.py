"""Which rank holds the others up.

All ranks end a step together, so the duration of a step says nothing of one rank. What is compared is the time that a
rank spends on its own: loading data, and the forward passes of query and keys, in which nobody waits for another (at
ZeRO stage 3 the query's forward pass gathers weights and is left out).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median, median_low
from typing import Any

import torch

STEPS = 10  # in a row over which a rank must be slow to be named
LEAST_SHARE = 0.05  # of a step that it must cost


class OwnWork:
    """A clock for the work of this rank alone: `with own_work:` around each part of it.

    On a GPU the borders are events in its stream, so that neither the host nor the device waits for the clock.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._parts: list[tuple[Any, Any]] = []
        self._began: Any = None

    def __enter__(self) -> None:
        self._began = self._moment()

    def __exit__(self, *_: object) -> None:
        self._parts.append((self._began, self._moment()))

    def take(self) -> Callable[[], float]:
        """A function that gives the seconds since the last call; on a GPU it waits for the device."""
        parts, self._parts = self._parts, []
        if not self._on_gpu:
            return lambda: sum(end - start for start, end in parts)
        return lambda: sum(_milliseconds(start, end) for start, end in parts) / 1_000

    def _moment(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _milliseconds(start: Any, end: Any) -> float:
    end.synchronize()
    return start.elapsed_time(end)


def figures(own_s: Sequence[float]) -> dict[str, Any]:
    """The slowest rank of a step and how much longer it takes than the median rank, of two the faster; for a row."""
    slowest = max(own_s)
    typical = median_low(own_s)
    return {"slowest_rank": own_s.index(slowest), "slowest_over_median": slowest / typical if typical > 0 else 1.0}


@dataclass(frozen=True)
class SlowRank:
    """A rank that holds the others up."""

    rank: int
    own_s: float
    median_s: float

    @property
    def times(self) -> float:
        return self.own_s / self.median_s

    def __str__(self) -> str:
        return (
            f"takes {self.times:.1f} times as long as the median rank for work of its own ({self.own_s:.3g} s a step "
            f"against {self.median_s:.3g} s), in the last {STEPS} steps"
        )


class Stragglers:
    """Looks at the steps of all ranks as they are written, and keeps who has been slow for long."""

    def __init__(self, factor: float) -> None:
        """`factor`: times the median from which a rank is slow; 0: never."""
        self.factor = factor
        self.slow: SlowRank | None = None
        self._steps: list[tuple[Sequence[float], float]] = []

    def look(self, steps: Sequence[tuple[Sequence[float], float]]) -> SlowRank | None:
        """Add steps, each (own seconds of every rank, duration); the slow rank where it is one newly."""
        self._steps = [*self._steps, *steps][-STEPS:]
        before, self.slow = self.slow, self._find()
        return self.slow if self.slow is not None and (before is None or before.rank != self.slow.rank) else None

    def _find(self) -> SlowRank | None:
        if not self.factor or len(self._steps) < STEPS:
            return None
        by_rank = [median(times) for times in zip(*(own_s for own_s, _ in self._steps), strict=True)]
        own_s, median_s = max(by_rank), median_low(by_rank)
        costs = own_s - median_s >= LEAST_SHARE * median(step_s for _, step_s in self._steps)
        if median_s <= 0 or own_s < self.factor * median_s or not costs:
            return None
        return SlowRank(by_rank.index(own_s), own_s, median_s)
