"""How often sentences that met in a batch meet again."""

from __future__ import annotations

import numpy as np

from spe_dist.benchmark.data.mixing import share_met_again
from spe_dist.data.batches.order import Order


def plain_share(order: Order, steps: list[int]) -> float:
    """By writing out every pair of every batch of the second epoch."""
    again: dict[int, int] = {}
    for step in range(2 * order.sentences_per_epoch // order.global_batch + 2):
        places = order.slots(step, 0, order.global_batch)
        again |= {s: step for s, e in zip(places.sentences_N.tolist(), places.epochs_N.tolist(), strict=True) if e == 1}
    met = pairs = 0
    for step in steps:
        sentences = order.slots(step, 0, order.global_batch).sentences_N.tolist()
        for i, one in enumerate(sentences):
            for other in sentences[:i]:
                met, pairs = met + (again[one] == again[other]), pairs + 1
    return met / pairs


def test_the_share_is_that_of_pairs_written_out():
    for shard_blocks in (None, np.array([3, 4, 5])):
        order = Order(np.full(12, 20), 0, 4, 12, shard_blocks=shard_blocks)
        steps = np.linspace(0, 240 // 12 - 2, 7, dtype=int).tolist()
        assert share_met_again(order, 7) == plain_share(order, steps)


def test_many_streams_mix_better_than_few():
    sizes = np.full(200, 50)
    shares = [share_met_again(Order(sizes, 0, streams, 40, shard_blocks=np.full(20, 10)), 20) for streams in (40, 4, 1)]
    assert shares == sorted(shares) and 2 * shares[1] < shares[2]
