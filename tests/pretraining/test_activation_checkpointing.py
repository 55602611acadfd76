"""Activation checkpointing on real ranks: what is recomputed in the backward pass changes no bit of a training."""

from unittest import mock

import pytest
import torch
from small_steps import VOCABULARY, build_step, make_batch, micro_batches, small_config, start

from spe_dist.model.loading import load_encoder
from spe_dist.model.start.build import build_key_encoder, build_pretraining_model
from spe_dist.training.footprint import activations, saved_activations
from spe_dist.training.live_memory import peak_bytes

STEPS, ACCUMULATION = 3, 2
LAYERS = 6
OFFLOAD = {"offload_optimizer": {"device": "cpu"}}


def train(stage, precision, zero, given):
    """Weights, norms and losses of some steps with dropout, without and with activation checkpointing."""
    context, found = start(), []
    for recompute in (False, True):
        config = small_config(dropout=0.1, activation_checkpointing=recompute, **given)
        step = build_step(config, context, stage, ACCUMULATION, precision, zero)
        rows = []
        for number in range(STEPS):
            outcome = step(number, 1e-2, micro_batches(config, context, number, ACCUMULATION))
            rows.append((float(step.engine.grad_norm()), {k: v.tolist() for k, v in outcome.sums.items()}))
        found.append((rows, step.engine.master_weights()))
    return found


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("ranks", "stage", "precision", "zero"),
    [
        (1, 0, "float32", {}),
        (1, 0, "mixed", {}),
        (2, 1, "bfloat16", {}),
        (2, 2, "float32", OFFLOAD),
        (2, 3, "float32", {}),
        (2, 3, "bfloat16", {"stage3_param_persistence_threshold": 0, **OFFLOAD}),
    ],
)
def test_recomputed_layers_change_no_bit_at_any_stage(run_ranks, ranks, stage, precision, zero):
    for plain, recomputed in run_ranks(train, ranks, stage, precision, zero, {}):
        assert plain[0] == recomputed[0]
        assert plain[1].keys() == recomputed[1].keys()
        assert all(torch.equal(plain[1][name], recomputed[1][name]) for name in plain[1])


@pytest.mark.long
@pytest.mark.distributed
def test_recomputed_layers_change_no_bit_of_compiled_ones(run_ranks):
    """Compiled by autograd's own tracer, whose kernels draw dropout by other means than the uncompiled ones."""
    real = torch.compile
    with mock.patch.object(torch, "compile", lambda *args, **given: real(*args, **{**given, "backend": "aot_eager"})):
        ((plain, recomputed),) = run_ranks(train, 1, 2, "float32", {}, {"compile": True})
    assert plain[0] == recomputed[0]
    assert all(torch.equal(plain[1][name], recomputed[1][name]) for name in plain[1])


def build(recompute):
    config = small_config(dropout=0.1, layers=LAYERS, activation_checkpointing=recompute)
    model = build_pretraining_model(config, load_encoder(None, config.model, VOCABULARY, 0).encoder).train()
    return config, model, make_batch(config, 0, 64)


def forward_and_backward(model, batch):
    """One after which only gradients are left, made before so that they do not count."""
    outputs = model(batch)
    parts = (outputs.tbo_logits_MV, outputs.spo_logits_PO, outputs.pair_queries_BC, outputs.context_queries_BC)
    sum((part.sum() for part in parts), outputs.anchor).backward()


def test_only_inputs_of_layers_and_one_layers_activations_are_in_memory():
    """Counted in tensors that are alive at once: what is spared, and what `--dry_run` takes it to be."""
    found, counted = {}, {}
    for recompute in (False, True):
        _, model, batch = build(recompute)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        found[recompute] = peak_bytes(lambda model=model, batch=batch: forward_and_backward(model, batch))
        layers = model.spe.encoder.encoder
        counted[recompute] = activations(model, layers, lambda model=model, batch=batch: model(batch))
        assert layers.recompute == recompute
    state_bytes = 4 * batch.n_tokens * model.spe.encoder.config.hidden_size
    with mock.patch.object(model.spe.encoder.encoder, "recompute", False):
        whole = saved_activations(model, lambda: model(batch))
    layer_bytes = (whole - saved_activations(model, lambda: model(batch))) / LAYERS
    assert layer_bytes > 8 * state_bytes
    assert found[False] - found[True] > 0.9 * (LAYERS - 1) * layer_bytes
    assert counted[False] - counted[True] == pytest.approx((LAYERS - 1) * layer_bytes, rel=0.01)


def test_keys_are_made_without_it():
    config, model, batch = build(True)
    keys = build_key_encoder(model, config)
    with mock.patch("spe_dist.model.encoder.checkpoint", side_effect=AssertionError("keys have no backward pass")):
        keys.keys(batch)
