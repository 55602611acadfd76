"""Whether a state holds only finite numbers, in one pass where it lies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from spe_dist.distributed.context import RankContext
from spe_dist.moco.layout import merged

Named = tuple[str, Tensor]


@torch.no_grad()
def first_non_finite(state: Iterable[Named], context: RankContext) -> str | None:
    """The name of the first tensor with an infinite number or one that is none, of the lowest rank that has one.

    A collective; each rank gives the tensors that it holds. None where all are finite.
    """
    tensors = [(name, tensor) for name, tensor in state if tensor.is_floating_point() and tensor.numel()]
    mine = None if _are_finite([tensor for _, tensor in tensors]) else _first_bad(tensors)
    return next((name for name in context.all_gather_object(mine) if name is not None), None)


def _are_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether all sums are finite; if so, all numbers are. Neighbours in memory are summed together.

    A sum is the fastest pass, many times as fast as a norm on a CPU, and never hides anything.
    """
    sums: dict[torch.device, list[Tensor]] = {}
    for piece in merged([tensor.detach().reshape(-1) for tensor in tensors]):
        sums.setdefault(piece.device, []).append(piece.sum(dtype=torch.float32))
    return all(bool(torch.isfinite(torch.stack(found)).all()) for found in sums.values())


def _first_bad(tensors: Iterable[Named]) -> str | None:
    """By name; a sum may also overflow over finite numbers."""
    return next((name for name, tensor in tensors if not bool(torch.isfinite(tensor).all())), None)
