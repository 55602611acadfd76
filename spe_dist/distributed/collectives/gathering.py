"""Gathers of parts of any size, which go on while other work is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# torch 2.13 renamed it and warns of the old name
gather_into = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor

MOST_BROADCASTS = 64  # of one gather of unequal parts


class Gathering:
    """A gather that may still be under way while other work is done."""

    def __init__(
        self, works: Sequence[Any], result: Callable[[], Tensor], waiting: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """`waiting`: what to be in while it is waited for."""
        self._works, self._result, self._waiting = list(works), result, waiting

    @property
    def done(self) -> bool:
        """Whether there is nothing to wait for."""
        return not self._works

    def wait(self) -> Tensor:
        """The result. On a GPU its stream waits, not the caller."""
        with self._waiting():
            for work in self._works:
                work.wait()
        self._works.clear()
        return self._result()


def start_gather(
    tensor_1d: Tensor, sizes: Sequence[int], rank: int, waiting: Callable[[], AbstractContextManager[None]]
) -> Gathering:
    """Every rank's tensor, of `sizes[rank]` elements, joined in rank order; a collective of the default group.

    What goes over the network is (ranks - 1) / ranks of the whole, from each rank on the average. Equal parts are
    gathered; for unequal ones, which gloo does not gather, each rank broadcasts its own; beyond `MOST_BROADCASTS`
    ranks their latencies would take longer than padding, and all are filled up to the largest.
    """
    assert tensor_1d.dim() == 1 and tensor_1d.shape[0] == sizes[rank], (tensor_1d.shape, sizes)
    if len(sizes) == 1:
        return Gathering([], lambda: tensor_1d, waiting)
    largest = max(sizes)
    if min(sizes) == largest or len(sizes) > MOST_BROADCASTS:
        missing = largest - tensor_1d.shape[0]
        padded = torch.nn.functional.pad(tensor_1d, (0, missing)) if missing else tensor_1d.contiguous()
        rows = tensor_1d.new_empty(len(sizes), largest)
        work = gather_into(rows.view(-1), padded, async_op=True)
        return Gathering([work], lambda: _without_padding(rows, sizes), waiting)
    joined = tensor_1d.new_empty(sum(sizes))
    parts = joined.split(list(sizes))
    parts[rank].copy_(tensor_1d)
    works = [dist.broadcast(part, source, async_op=True) for source, part in enumerate(parts) if part.numel()]
    return Gathering(works, lambda: joined, waiting)


def _without_padding(rows: Tensor, sizes: Sequence[int]) -> Tensor:
    if min(sizes) == rows.shape[1]:
        return rows.view(-1)
    return torch.cat([row[:size] for row, size in zip(rows, sizes, strict=True)])
