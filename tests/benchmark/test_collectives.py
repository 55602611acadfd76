"""Collectives are counted with their bytes, whoever calls them."""

import pytest
import torch
from small_steps import start

from spe_dist.benchmark.collectives import CollectiveCounter


def counted():
    context = start()
    with CollectiveCounter() as counter:
        context.all_gather_rows(torch.zeros(10, 3))
        context.all_reduce_sum(torch.zeros(7, dtype=torch.float64))
        context.sum_numbers([1.0, 2.0])
        context.barrier()
    context.all_reduce_sum(torch.zeros(5))  # no longer counted
    return counter.by_kind()


@pytest.mark.distributed
@pytest.mark.parametrize("ranks", [1, 2])
def test_calls_and_bytes_by_kind(run_ranks, ranks):
    for found in run_ranks(counted, ranks):
        if ranks == 1:
            assert found == {}
        else:
            assert found == {"all-gather": (1, 2 * 10 * 3 * 4), "all-reduce": (2, 7 * 8 + 2 * 8), "barrier": (1, 0)}
