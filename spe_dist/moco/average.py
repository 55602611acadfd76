"""The exponential moving average of the query's weights, in float32 with a compensation term.

    average <- m average + (1 - m) source

One update with m = 0.999 moves a weight near 1 by less than half a unit of its last place, which plain float32 rounds
away: 1,000 steps err by 1e-5 and more. What each step loses is therefore kept in a second number (Kahan), 8 bytes a
parameter in all, and 1,000 steps stay within 1e-7 of float64.

The arithmetic is done in one pass by a compiled kernel on GPUs, and on CPUs where that is asked for: it reads 12 bytes
a parameter (source, average, compensation) and writes 8. Else it is eight operations over chunks that fit into a cache;
from memory they would move 88 bytes a parameter. Both give the same bits.

Legend of the shape suffixes:
    P numbers that this average holds (joined intervals of the flat vector), N numbers of one chunk
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import torch
from torch import Tensor

from spe_dist.moco.layout import merged

CHUNK_NUMEL_CPU = 1 << 18  # what an update touches at once stays in a core's second-level cache
CHUNK_NUMEL_GPU = 1 << 21  # its five buffers stay in the cache of a data-centre GPU
CHUNK_NUMEL_COMPILED = {"cpu": 1 << 20, "cuda": 1 << 24}  # bounds the copy of pieces that have to be joined

Step = Callable[[Tensor, Tensor, Tensor, float], None]


class KeyAverage:
    """Average and compensation of P numbers on one device; the value meant is average_P + compensation_P.

    Every operation is one IEEE addition, subtraction or multiplication, so that the numbers depend neither on where
    they lie in the vector nor on how it is cut over ranks.
    """

    def __init__(self, source_P: Tensor, momentum: float, compiled: bool | None = None) -> None:
        """Start as an exact copy of `source_P` (any floating type, 1-d). `compiled`: in one kernel; none: on GPUs."""
        assert 0.0 <= momentum <= 1.0
        self.momentum = momentum
        self.average_P = source_P.detach().to(torch.float32, copy=True)
        self.compensation_P = torch.zeros_like(self.average_P)
        device = self.average_P.device
        if compiled is None:
            compiled = device.type == "cuda"
        step = compiled_step(device, 1.0 - momentum) if compiled else None
        chunk = CHUNK_NUMEL_CPU if device.type == "cpu" else CHUNK_NUMEL_GPU
        self._step: Step = step or compensated_step
        self.chunk_numel = CHUNK_NUMEL_COMPILED[device.type] if step else chunk

    @torch.no_grad()
    def update(self, pieces: Sequence[Tensor]) -> None:
        """Move towards the source, given as 1-d tensors of any floating type that, joined, are P numbers."""
        assert sum(piece.numel() for piece in pieces) == self.average_P.numel()
        offset = 0
        for parts in _chunks(merged(pieces), self.chunk_numel):
            source_N = _joined(parts, self.average_P)
            here = slice(offset, offset + source_N.numel())
            self._step(self.average_P[here], self.compensation_P[here], source_N, 1.0 - self.momentum)
            offset = here.stop


def compensated_step(average_N: Tensor, compensation_N: Tensor, source_N: Tensor, rate: float) -> None:
    """average + compensation += rate * (source - average - compensation), in place."""
    step_N = (source_N - average_N).sub_(compensation_N).mul_(rate).add_(compensation_N)
    moved_N = average_N + step_N
    torch.sub(average_N, moved_N, out=compensation_N)  # minus what the addition really moved
    compensation_N.add_(step_N)
    average_N.copy_(moved_N)


def _step_to_compile(average_N: Tensor, compensation_N: Tensor, source_N: Tensor, rate: float) -> None:
    step_N = (source_N - average_N - compensation_N) * rate + compensation_N
    moved_N = average_N + step_N
    compensation_N.copy_((average_N - moved_N) + step_N)
    average_N.copy_(moved_N)


@cache
def compiled_step(device: torch.device, rate: float) -> Step | None:
    """`compensated_step` as one kernel; None, with a warning, where it cannot be compiled or gives other bits."""
    # Else the compiler rounds a product and a sum once instead of twice.
    step: Step = torch.compile(_step_to_compile, dynamic=True, options={"emulate_precision_casts": True})
    try:
        reason = "" if _equal_bits(step, device, rate) else "its bits differ"
    except Exception as error:  # compilers fail in many ways
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    if reason:
        warnings.warn(
            f"the key encoder's average runs in several kernels, not in a compiled one: {reason}", stacklevel=2
        )
        return None
    return step


@torch.no_grad()
def _equal_bits(step: Step, device: torch.device, rate: float) -> bool:
    """Whether two updates of some numbers, at both kinds of length, are those of `compensated_step`."""
    generator = torch.Generator().manual_seed(0)
    for numel in (4_096, 4_099):
        start = torch.randn(3, numel, generator=generator).to(device)
        results = []
        for update in (compensated_step, step):
            average_N, compensation_N, source_N = start.clone()
            for _ in range(2):
                update(average_N, compensation_N, source_N, rate)
            results.append(torch.stack([average_N, compensation_N]))
        if not torch.equal(*results):
            return False
    return True


def _joined(parts: Sequence[Tensor], like: Tensor) -> Tensor:
    """The parts as one tensor of the type and on the device of `like`; a view where that can be."""
    parts = [part.to(like) for part in parts]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _chunks(pieces: Sequence[Tensor], chunk_numel: int) -> Iterator[list[Tensor]]:
    """The pieces regrouped: every list but the last joins to exactly `chunk_numel` numbers."""
    parts: list[Tensor] = []
    free = chunk_numel
    for piece in pieces:
        start = 0
        while start < piece.numel():
            length = min(free, piece.numel() - start)
            parts.append(piece.narrow(0, start, length))
            start, free = start + length, free - length
            if free == 0:
                yield parts
                parts, free = [], chunk_numel
    if parts:
        yield parts
