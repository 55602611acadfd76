"""A plain matrix product, measured in between, as what the machine can do at that moment."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

SECONDS = 0.2  # of each measurement
UNWATCHED_S = 0.01  # of products between two looks at the clock, which waits for a GPU


class PlainProduct:
    """FLOP a second of the largest product of an encoder layer, for so many rows, from many short measurements."""

    def __init__(
        self, rows: int, hidden_size: int, intermediate_size: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.x = torch.randn(rows, hidden_size, device=device).to(dtype)
        self.weight = torch.randn(intermediate_size, hidden_size, device=device).to(dtype)
        self.now = device_clock(device)
        self.repeats, self.seconds, self.cpu_s = 0, 0.0, 0.0

    def measure(self, seconds: float = SECONDS) -> None:
        """Add a measurement of about so many seconds."""
        self._seconds_of(1)  # what is made at the first product
        unwatched = max(1, int(2 * UNWATCHED_S / max(self._seconds_of(2), 1e-9)))
        began, cpu_began = self.now(), time.process_time()
        spent, cpu_spent = 0.0, 0.0
        while spent < seconds:
            self._seconds_of(unwatched)
            self.repeats += unwatched
            spent, cpu_spent = self.now() - began, time.process_time() - cpu_began
        self.seconds += spent
        self.cpu_s += cpu_spent

    def _seconds_of(self, repeats: int) -> float:
        began = self.now()
        for _ in range(repeats):
            F.linear(self.x, self.weight)
        return self.now() - began

    @property
    def flops(self) -> float:
        """Of all measurements."""
        return 2.0 * self.x.shape[0] * self.weight.numel() * self.repeats

    @property
    def rate(self) -> float:
        return self.flops / self.seconds

    def __str__(self) -> str:
        (rows, inner), outer = self.x.shape, self.weight.shape[0]
        return f"[{rows:,} x {inner:,}] by [{inner:,} x {outer:,}] in {str(self.x.dtype).removeprefix('torch.')}"


def device_clock(device: torch.device) -> Callable[[], float]:
    """A clock in seconds that waits for what the device has to do."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return now
