"""The pre-training step the way a GPU takes, with values and without a GPU: the same numbers as on a CPU."""

import copy

import pytest
import torch
from shadow import META, Shadow
from small_steps import VOCABULARY, make_batch, small_config

from spe_dist.benchmark.launches import LaunchCounter
from spe_dist.benchmark.step_launches import CountedEngine
from spe_dist.distributed.context import RankContext
from spe_dist.distributed.deepspeed_config import DTYPES, product_dtype
from spe_dist.moco import KeyQueue, MomentumContrast, MomentumKeyEncoder, PlainWeights
from spe_dist.model.loading import load_encoder
from spe_dist.model.start.build import build_key_encoder, build_pretraining_model
from spe_dist.pretraining.step import TrainingStep

CPU = torch.device("cpu")
STEPS = 3  # 8 keys each into queues of 20: the last of them wraps


def train(config, device, precision):
    """Steps of plain descent; (losses, gradients of the last step, queues, key encoder), and what was counted."""
    dtype, encoder = DTYPES[precision], load_encoder(None, config.model, VOCABULARY, 0).encoder
    encoder.product_dtype = product_dtype(precision)
    model = build_pretraining_model(config, encoder)
    key_module = build_key_encoder(model, config).to(device, dtype)
    masters = copy.deepcopy(model.spe).to(device)
    model = model.to(device, dtype).train()
    context = RankContext(0, 1, 0, device, None)
    queues = [KeyQueue(20, config.model.contrastive_size, torch.float32, device) for _ in range(2)]
    keys = MomentumKeyEncoder(key_module, PlainWeights(masters), context, 0.9, query=model.spe)
    moco = MomentumContrast(keys, *queues)
    moco.start()
    counter = LaunchCounter(device)
    step = TrainingStep(CountedEngine(model, counter), moco, config, context)
    losses = {}
    with counter:
        for number in range(STEPS):
            model.zero_grad()
            batches = [make_batch(config, 8 * number, 5), make_batch(config, 8 * number + 5, 3)]
            outcome = step(number, 0.0, batches)
            losses |= {f"{name} {number}": value for name, value in outcome.sums.items()}
            with torch.no_grad():
                for master, parameter in zip(masters.parameters(), model.spe.parameters(), strict=True):
                    master.sub_(0.01 * parameter.grad)
                    parameter.copy_(master)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return (losses, gradients, dict(moco.pair_queue.state_dict()), dict(key_module.state_dict())), counter


def assert_close(found, expected, tolerance):
    """Each tensor within a share of its own size, or of what the largest of them would make of it."""
    largest = max(float(value.double().norm()) for value in expected.values())
    for name, value in expected.items():
        error = float((found[name].double() - value.double()).norm())
        assert error <= tolerance * max(float(value.double().norm()), 1e-2 * largest), name


PRECISIONS = {
    "float32": 1e-4,
    "mixed": 0.1,
    "bfloat16": 0.1,
    "float16": 0.02,
}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_steps_of_a_gpu_compute_what_those_of_a_cpu_do_and_wait_for_nothing(precision):
    config = small_config(permutations=2)
    expected, _ = train(config, CPU, "float32")
    with Shadow() as shadow:
        results, counter = train(config, META, precision)
        found = [{name: shadow.read(value) for name, value in result.items()} for result in results]
    assert not counter.waits
    packed = {name for _, name in counter.launches} & {"_varlen_attn", "_varlen_attn_backward"}
    assert bool(packed) == (precision != "float32")
    for ours, plain in zip(found, expected, strict=True):
        assert_close(ours, plain, PRECISIONS[precision])


def test_a_step_on_a_gpu_that_mixes_in_a_tensor_of_the_host_fails(monkeypatch):
    config = small_config()
    monkeypatch.setattr("spe_dist.data.batches.packed.PackedBatch.to", lambda batch, device, non_blocking: batch)
    with Shadow(), pytest.raises((AssertionError, RuntimeError), match=r"mixed|device"):
        train(config, META, "float32")
