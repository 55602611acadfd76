"""How long something takes on a device: medians of many short measurements, without what the first ones make."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from statistics import median

import torch

SECONDS = 0.5  # of each thing that is measured
FEWEST, MOST = 3, 200  # measurements
WARM_UP = 3


def milliseconds(function: Callable[[], object], device: torch.device, seconds: float = SECONDS) -> float:
    """The median time of a call, launches and all that the device does for it."""
    for _ in range(WARM_UP):
        function()
    if device.type == "cuda":
        return _on_gpu(function, device, seconds)
    taken: list[float] = []
    began = time.perf_counter()
    while len(taken) < FEWEST or (time.perf_counter() - began < seconds and len(taken) < MOST):
        before = time.perf_counter()
        function()
        taken.append(time.perf_counter() - before)
    return 1000 * median(taken)


def _on_gpu(function: Callable[[], object], device: torch.device, seconds: float) -> float:
    torch.cuda.synchronize(device)
    began = time.perf_counter()
    marks = [_mark()]
    while len(marks) <= FEWEST or (time.perf_counter() - began < seconds and len(marks) <= MOST):
        function()
        marks.append(_mark())
        if len(marks) % 8 == 0:  # do not run ahead of the device for longer than was asked for
            marks[-1].synchronize()
    torch.cuda.synchronize(device)
    return median(before.elapsed_time(after) for before, after in itertools.pairwise(marks))


def _mark() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
