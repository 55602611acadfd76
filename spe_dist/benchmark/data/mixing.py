"""What reading shard by shard loses: how often sentences that met in a batch meet again in the next epoch.

Sentences are shuffled over the whole corpus when shards are made. So in the first epoch a batch is a random sample in
either order; in later ones the same neighbours come along where a stream reads many sentences of one block at a time.

Legend of the shape suffixes: N sentences, G sentences of a batch
"""

from __future__ import annotations

import numpy as np

from spe_dist.data.batches.order import Order


def share_met_again(order: Order, sampled_steps: int = 100) -> float:
    """Of all pairs of sentences in a batch of epoch 0, the share that is in one batch of epoch 1 again."""
    total, batch = order.sentences_per_epoch, order.global_batch
    step_N = np.full(total, -1, dtype=np.int64)  # of epoch 1, by sentence
    for step in range(total // batch - 1, order.steps_for(2) + 1):
        places = order.slots(step, 0, batch)
        step_N[places.sentences_N[places.epochs_N == 1]] = step
    assert step_N.min() >= 0
    met = pairs = 0
    for step in np.linspace(0, total // batch - 2, sampled_steps, dtype=np.int64).tolist():
        _, counts = np.unique(step_N[order.slots(step, 0, batch).sentences_N], return_counts=True)
        met += int((counts * (counts - 1)).sum()) // 2
        pairs += batch * (batch - 1) // 2
    return met / pairs
