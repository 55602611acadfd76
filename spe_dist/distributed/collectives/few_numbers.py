"""Sums and maxima of a few numbers over many ranks, where what takes time is not their size but how far they travel.

gloo's all-reduce hands numbers around a ring, in 2 * (ranks - 1) hops one after the other. Here ranks exchange them in
pairs, at distances 1, 2, 4 and so on (recursive doubling): 10 rounds instead of 2,046 hops for 1,024 ranks. A round
costs more than a hop, so the ring is for few ranks (`MOST_IN_A_RING`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

MOST_IN_A_RING = 8


def reduce_in_pairs(values: Tensor, combine: Callable[[Tensor, Tensor], Tensor], group: Any) -> Tensor:
    """The values of all ranks of a gloo group, combined; the same bits on every rank. A collective.

    `combine`: of two tensors, in any order and grouping, such as torch.add and torch.maximum. Ranks beyond the largest
    power of two hand theirs to another rank first, and take the outcome from it.
    """
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)
    pairing = 1 << (ranks.bit_length() - 1)
    theirs = torch.empty_like(values)
    if rank >= pairing:
        dist.send(values, group=group, group_dst=rank - pairing)
        dist.recv(theirs, group=group, group_src=rank - pairing)
        return theirs
    is_partner_of_spare = rank + pairing < ranks
    if is_partner_of_spare:
        dist.recv(theirs, group=group, group_src=rank + pairing)
        values = combine(values, theirs)
    distance = 1
    while distance < pairing:
        sending = dist.isend(values, group=group, group_dst=rank ^ distance)
        dist.recv(theirs, group=group, group_src=rank ^ distance)
        assert sending is not None  # this rank is of the group
        sending.wait()
        values = combine(values, theirs)
        distance *= 2
    if is_partner_of_spare:
        dist.send(values, group=group, group_dst=rank + pairing)
    return values
