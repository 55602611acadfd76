"""The plain form of pre-training computes what the fast one computes."""

import pytest
import torch
from small_steps import VOCABULARY, build_step, make_batch, small_config, start

from spe_dist.benchmark.pretraining.contenders import fill_queues
from spe_dist.benchmark.pretraining.plain import PlainStep
from spe_dist.model.loading import load_encoder


def losses_of_both(view_masks, permutations):
    config = small_config(view_masks=view_masks, permutations=permutations, queue_keys=50, learning_rate=1e-3)
    step = build_step(config, start(), stage=1, accumulation=1)
    fill_queues(step.moco, config)
    bert = load_encoder(None, config.model, VOCABULARY, config.train.seed).bert_config
    plain = PlainStep(config, bert, torch.device("cpu"), None)
    plain.model.load_state_dict(step.engine.module.state_dict(), strict=False)
    plain.keys.load_state_dict(plain.model.spe.state_dict())
    moco = step.moco
    plain.queues = [moco.pair_queue.keys_KC.clone(), moco.context_queue.keys_KC.clone()]
    plain.queue_ids = moco.pair_queue.ids_K.clone()
    both = []
    for number in range(3):
        batch = make_batch(config, number * 8, 8)
        outcome = step(number, 1e-3, [batch])
        ours = {name: float(outcome.sums[f"{name}/loss"]) / count for name, count in outcome.counts.items()}
        both.append((ours, plain(batch)))
    return both


@pytest.mark.distributed
@pytest.mark.parametrize("view_masks, permutations", [("each", 1), ("one", 1), ("one", 2)])
def test_losses_are_equal_for_the_same_weights_and_batches(run_ranks, view_masks, permutations):
    [steps] = run_ranks(losses_of_both, 1, view_masks, permutations)
    for number, (ours, plain) in enumerate(steps):
        assert plain.keys() == ours.keys()
        # Later ones after an update of weights, keys and queues; only the decay of biases differs.
        assert plain == pytest.approx(ours, rel=2e-6 if number == 0 else 1e-3)
