"""Whole steps with compiled parts, engine and momentum contrast included, against the same uncompiled."""

from unittest import mock

import pytest
import torch
from small_steps import build_step, micro_batches, small_config, start


def _train(stage):
    """By `compile`: losses of three steps, weights of queries and keys after them."""
    context = start()
    found = {}
    real = torch.compile
    for compile in (False, True):
        config = small_config(compile=compile)
        with mock.patch.object(torch, "compile", lambda *args, **given: real(*args, **{**given, "backend": "eager"})):
            step = build_step(config, context, stage, accumulation=2)
            outcomes = [step(i, 1e-2, micro_batches(config, context, i, 2)) for i in range(3)]
        losses = [float(outcome.sums[f"{name}/loss"]) for outcome in outcomes for name in ("tbo", "spo", "cspo")]
        keys = {name: value.clone() for name, value in step.moco.key_module.state_dict().items()}
        found[compile] = losses, step.engine.master_weights(), keys
    return found


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("stage", [0, 2])
def test_compiled_steps_train_as_uncompiled_ones_at_each_stage(run_ranks, stage):
    (found,) = run_ranks(_train, 1, stage)
    plain_losses, *plain = found[False]
    losses, *ours = found[True]
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(plain_losses), rtol=1e-4, atol=1e-4)
    for weights, plain_weights in zip(ours, plain, strict=True):
        assert weights.keys() == plain_weights.keys()
        moved = sum(float((weights[name] - plain_weights[name]).norm()) for name in weights)
        assert moved < 1e-2 * sum(float(value.norm()) for value in plain_weights.values())
