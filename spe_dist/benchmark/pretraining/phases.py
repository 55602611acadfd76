"""Where a step's time goes: the real `TrainingStep` with a clock at the borders of its parts.

Nothing of the step is written again here. Its engine and its momentum contrast are what they are; their public methods
are wrapped, so that a watch sees when each begins and ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch

from spe_dist.benchmark.pretraining.work import Spent
from spe_dist.benchmark.product import device_clock
from spe_dist.distributed.engine import TrainingEngine
from spe_dist.pretraining.step import TrainingStep

REST = "rest"  # of a step: counts, sums, seeds, copies to the device
PHASES = ("data", "query", "keys", "losses", "backward", "engine", "average", "enqueue", REST)

Watch = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class _Moment:
    wall_s: float
    cpu_s: float
    event: Any  # of CUDA; None elsewhere

    def until(self, later: _Moment) -> Spent:
        seconds = later.wall_s - self.wall_s if self.event is None else self.event.elapsed_time(later.event) / 1000
        return Spent(seconds, later.cpu_s - self.cpu_s)


class PhaseClock:
    """Wall and CPU time by phase; an inner phase takes its time out of the outer one.

    On a GPU the borders are events in its stream, so that measuring makes the host wait for nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._phase = REST
        self._began = self._moment()
        self._parts: list[tuple[str, _Moment, _Moment]] = []

    def start(self) -> None:
        """Forget what was measured and begin with the phase `rest`."""
        self._parts.clear()
        self._phase, self._began = REST, self._moment()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        outer = self._switch(name)
        try:
            yield
        finally:
            self._switch(outer)

    def stop(self) -> dict[str, Spent]:
        """Time of all phases since `start`; waits for the device."""
        self._switch(REST)
        device_clock(self.device)()
        spent = dict.fromkeys(PHASES, Spent())
        for name, began, ended in self._parts:
            spent[name] += began.until(ended)
        return spent

    def _switch(self, name: str) -> str:
        now, outer = self._moment(), self._phase
        self._parts.append((outer, self._began, now))
        self._phase, self._began = name, now
        return outer

    def _moment(self) -> _Moment:
        event = None
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
        return _Moment(time.perf_counter(), time.process_time(), event)


class WatchedStep:
    """A training step whose parts run inside `watch(name)`."""

    def __init__(self, step: TrainingStep, watch: Watch) -> None:
        self.step = step
        self.watch = watch
        step.engine = cast(TrainingEngine, _WatchedEngine(step.engine, watch))
        self._wrap(step, "terms", "losses")
        self._wrap(step, "_send_queries", "losses")
        if step.moco is not None:
            self._wrap(step.moco.key_module, "keys", "keys")
            self._wrap(step.moco, "follow", "average")
            self._wrap(step.moco.key_encoder, "finish", "average")
            self._wrap(step.moco, "enqueue", "enqueue")

    def _wrap(self, owner: Any, method: str, phase: str) -> None:
        setattr(owner, method, _inside(self.watch, phase, getattr(owner, method)))


class _WatchedEngine:
    def __init__(self, engine: TrainingEngine, watch: Watch) -> None:
        self._engine = engine
        self._forward = _inside(watch, "query", engine)
        self.backward = _inside(watch, "backward", engine.backward)
        self.step = _inside(watch, "engine", engine.step)

    def __call__(self, *inputs: Any) -> Any:
        return self._forward(*inputs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def _inside(watch: Watch, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def watched(*args: Any, **kwargs: Any) -> Any:
        with watch(phase):
            return function(*args, **kwargs)

    return watched
