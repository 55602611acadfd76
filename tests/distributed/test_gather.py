"""Gathering unequal parts: what arrives, what the network carries, and that nobody waits before it is used."""

import time

import pytest
import torch
from received_bytes import received_bytes
from torch import nn

from spe_dist.distributed.collectives import gathering as module
from spe_dist.distributed.context import start_ranks
from spe_dist.distributed.launch import detect
from spe_dist.moco import FlatLayout, Interval, MomentumKeyEncoder

pytestmark = pytest.mark.distributed

MESSAGES = 4_000  # bytes that gloo sends of its own for one gather, at most
CUTS = {"equal": [50_000] * 4, "unequal": [10_000, 70_000, 30_000, 90_000], "one has none": [80_000, 0, 60_000, 60_000]}


def gather(sizes, dtype, most_broadcasts):
    """What a rank gathers, and what it receives for that."""
    module.MOST_BROADCASTS = most_broadcasts
    context = start_ranks(detect(), 60.0)
    own = torch.arange(sizes[context.rank], dtype=torch.float32).add_(1_000 * context.rank).to(dtype)
    context.all_gather_uneven(torch.zeros(context.rank + 1), [rank + 1 for rank in range(context.ranks)])  # connects
    context.barrier()
    before = received_bytes()
    joined = context.start_gather(own, sizes).wait()
    received = received_bytes() - before
    context.barrier()
    return joined, received


@pytest.mark.parametrize("ranks", [2, 3, 4])
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_each_rank_receives_what_the_others_hold_and_no_more(run_ranks, ranks, cut, dtype):
    sizes = CUTS[cut][:ranks]
    expected = torch.cat([torch.arange(size).float().add_(1_000 * r).to(dtype) for r, size in enumerate(sizes)])
    for rank, (joined, received) in enumerate(run_ranks(gather, ranks, sizes, dtype, 64)):
        assert torch.equal(joined, expected)
        assert 0 <= received - (sum(sizes) - sizes[rank]) * dtype.itemsize <= MESSAGES


def test_very_many_ranks_fill_up_to_the_largest_part(run_ranks):
    sizes = CUTS["unequal"][:3]
    results = run_ranks(gather, 3, sizes, torch.float32, 2)
    assert torch.equal(results[0][0], results[2][0]) and results[1][0].shape == (sum(sizes),)
    for joined, received in results:
        assert torch.equal(joined[80_000:], torch.arange(30_000).float().add_(2_000))
        assert 0 <= received - 2 * max(sizes) * 4 <= MESSAGES


class Uneven:
    """Masters of which rank 0 holds a tenth and the last rank the rest."""

    def __init__(self, query: nn.Module, rank: int, ranks: int) -> None:
        self.query, total = query, FlatLayout.of(query).numel
        cuts = [0, *(total * (r + 1) // 10 for r in range(ranks - 1)), total]
        self.intervals = [Interval(cuts[rank], cuts[rank + 1] - cuts[rank])]

    def pieces(self):
        flat = nn.utils.parameters_to_vector(self.query.parameters()).detach()
        return [flat[i.start : i.start + i.length] for i in self.intervals]


def follow_and_work():
    """A momentum update whose exchange goes on while this rank computes; rank 0 comes late to it."""
    context = start_ranks(detect(), 60.0)
    query, keys = nn.Linear(300, 400), nn.Linear(300, 400).requires_grad_(False)
    with torch.no_grad():
        for number, parameter in enumerate(query.parameters()):
            parameter.copy_(torch.arange(parameter.numel()).view(parameter.shape) + number)
    encoder = MomentumKeyEncoder(keys, Uneven(query, context.rank, context.ranks), context, momentum=0.5)
    encoder.start()
    encoder.finish()
    with torch.no_grad():
        query.weight.mul_(3)
    context.barrier()
    if context.rank == 0:
        time.sleep(1)
    began, before = time.monotonic(), received_bytes()
    encoder.follow()
    left_s = time.monotonic() - began
    old = keys.weight[300, 5].item()
    new = encoder.module.weight[300, 5].item()
    received = received_bytes() - before
    query_weight = query.weight[300, 5].item()
    return left_s, old, new, query_weight, received - (120_400 - encoder._sizes[context.rank]) * 4


@pytest.mark.parametrize("ranks", [2, 4])
def test_an_update_leaves_at_once_and_the_next_use_of_the_module_waits(run_ranks, ranks):
    for rank, (left_s, old, new, query_weight, excess) in enumerate(run_ranks(follow_and_work, ranks)):
        assert old == query_weight / 3
        assert new == 2 * query_weight / 3  # half way from one third to the whole
        assert rank == 0 or left_s < 0.5
        assert 0 <= excess <= MESSAGES
