"""A few numbers of many ranks, combined in pairs: the same as one after the other, on every rank, in few rounds."""

import math
from dataclasses import replace

import pytest
import torch

from spe_dist.distributed import context as module
from spe_dist.distributed.collectives import few_numbers
from spe_dist.distributed.context import start_ranks
from spe_dist.distributed.launch import detect

pytestmark = pytest.mark.distributed

MOST = 6  # ranks of the tests


def numbers_of(rank):
    return [float(rank + 1), 2.0**53 - 10 * rank, -rank * 0.5, math.inf if rank == 1 else 0.0]


def reduce_among(counts):
    """For each count the first so many ranks, in a group of their own: sums, maxima, and what a rank receives."""
    module.MOST_IN_A_RING = 1
    received, recv = [], few_numbers.dist.recv
    few_numbers.dist.recv = lambda *given, **named: (received.append(1), recv(*given, **named))
    context = start_ranks(detect(), 60.0)
    results = []
    for count in counts:
        group = torch.distributed.new_group(list(range(count)), backend="gloo")
        received.clear()
        if context.rank < count:
            few = replace(context, ranks=count, control=group)
            mine = numbers_of(context.rank)
            results.append((few.sum_numbers([mine[0], mine[2]]), few.max_numbers(mine), len(received) / 2))
        context.barrier()
    return results


def test_sums_and_maxima_of_any_number_of_ranks_arrive_everywhere(run_ranks):
    counts = list(range(2, MOST + 1))
    of_ranks = run_ranks(reduce_among, MOST, counts)
    for place, count in enumerate(counts):
        rows = [numbers_of(rank) for rank in range(count)]
        sums = [sum(row[0] for row in rows), sum(row[2] for row in rows)]
        maxima = [max(column) for column in zip(*rows, strict=True)]
        for rank in range(count):
            found_sums, found_maxima, rounds = of_ranks[rank][place - max(0, rank - 1)]
            assert (found_sums, found_maxima) == (sums, maxima), (count, rank)
            assert rounds <= math.floor(math.log2(count)) + 1
