"""The exponential moving average of the query's weights, in float32 with a compensation term.

    average <- m average + (1 - m) source

One update with m = 0.999 moves a weight near 1 by less than half a unit of its last place, which plain float32 rounds
away: 1,000 steps err by 1e-5 and more. What each step loses is therefore kept in a second number (Kahan), 8 bytes a
parameter in all, and 1,000 steps stay within 1e-7 of float64.

Legend of the shape suffixes:
    P numbers that this average holds (joined intervals of the flat vector), N numbers of one chunk
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

CHUNK_NUMEL_CPU = 1 << 18  # what an update touches at once stays in a core's second-level cache
CHUNK_NUMEL_GPU = 1 << 22  # large enough that launches do not count, small enough for the GPU's cache


class KeyAverage:
    """Average and compensation of P numbers on one device; the value meant is average_P + compensation_P.

    Every operation is one IEEE addition, subtraction or multiplication, so that the numbers depend neither on where
    they lie in the vector nor on how it is cut over ranks.
    """

    def __init__(self, source_P: Tensor, momentum: float) -> None:
        """Start as an exact copy of `source_P` (any floating type, 1-d)."""
        assert 0.0 <= momentum <= 1.0
        self.momentum = momentum
        self.average_P = source_P.detach().to(torch.float32, copy=True)
        self.compensation_P = torch.zeros_like(self.average_P)
        chunk = CHUNK_NUMEL_CPU if self.average_P.device.type == "cpu" else CHUNK_NUMEL_GPU
        self.chunk_numel = min(chunk, max(1, self.average_P.numel()))

    @torch.no_grad()
    def update(self, pieces: Sequence[Tensor]) -> None:
        """Move towards the source, given as 1-d tensors of any floating type that, joined, are P numbers."""
        assert sum(piece.numel() for piece in pieces) == self.average_P.numel()
        step_N, moved_N = self.average_P.new_empty(2, self.chunk_numel)
        offset = 0
        for parts in _chunks(pieces, self.chunk_numel):
            length = sum(part.numel() for part in parts)
            _fill(step_N[:length], parts)
            average_N, compensation_N = (t[offset : offset + length] for t in (self.average_P, self.compensation_P))
            _compensated_step(average_N, compensation_N, step_N[:length], moved_N[:length], 1.0 - self.momentum)
            offset += length

    def restore(self, average_P: Tensor, compensation_P: Tensor) -> None:
        """Take over saved numbers exactly."""
        self.average_P.copy_(average_P)
        self.compensation_P.copy_(compensation_P)


def _compensated_step(average_N: Tensor, compensation_N: Tensor, step_N: Tensor, moved_N: Tensor, rate: float) -> None:
    """average + compensation += rate * (source - average - compensation), in place; `step_N` holds the source."""
    step_N.sub_(average_N).sub_(compensation_N).mul_(rate).add_(compensation_N)
    torch.add(average_N, step_N, out=moved_N)
    average_N.sub_(moved_N)  # minus what the addition really moved
    torch.add(average_N, step_N, out=compensation_N)
    average_N.copy_(moved_N)


def _fill(target_N: Tensor, parts: Sequence[Tensor]) -> None:
    if len(parts) == 1:
        target_N.copy_(parts[0])
    elif all(part.dtype == target_N.dtype and part.device == target_N.device for part in parts):
        torch.cat(list(parts), out=target_N)
    else:
        torch.cat([part.to(target_N) for part in parts], out=target_N)


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
