"""Whether a state holds only finite numbers of a useful size, in one pass where it lies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from spe_dist.distributed.context import RankContext
from spe_dist.moco.layout import merged

Named = tuple[str, Tensor]

# Larger numbers are as useless as infinite ones: their products overflow, and no step can be made from them.
LARGEST = 1e18


@torch.no_grad()
def first_non_finite(state: Iterable[Named], context: RankContext) -> str | None:
    """The name of the first tensor with NaN, an infinity or a number beyond LARGEST, of the lowest rank that has one.

    A collective; each rank gives the tensors that it holds. None where all numbers will do.
    """
    tensors = [(name, tensor) for name, tensor in state if tensor.is_floating_point() and tensor.numel()]
    mine = None if _are_finite([tensor for _, tensor in tensors]) else _first_bad(tensors)
    return next((name for name in context.all_gather_object(mine) if name is not None), None)


def _are_finite(tensors: Sequence[Tensor]) -> bool:
    """By the largest magnitude, in which NaN stays NaN. Neighbours in memory are looked at together."""
    largest: dict[torch.device, list[Tensor]] = {}
    for piece in merged([tensor.detach().reshape(-1) for tensor in tensors]):
        largest.setdefault(piece.device, []).append(_magnitude(piece).float())
    return all(bool((torch.stack(found) <= LARGEST).all()) for found in largest.values())


def _first_bad(tensors: Iterable[Named]) -> str | None:
    return next((name for name, tensor in tensors if not bool(_magnitude(tensor) <= LARGEST)), None)


def _magnitude(tensor: Tensor) -> Tensor:
    """The largest; the fastest pass on a CPU, as fast as a sum and many times as fast as a norm of infinite order."""
    low, high = torch.aminmax(tensor)
    return torch.maximum(-low, high)
