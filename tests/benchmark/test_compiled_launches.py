"""Launches of compiled parts: graphs taken through inductor without data and without a compiler."""

import pytest
import torch
import torch._dynamo
from small_steps import make_batch
from torch import nn
from transformers import BertConfig

from spe_dist.benchmark.compiled_launches import CompiledCounter
from spe_dist.benchmark.step_launches import count_step
from spe_dist.config.loading import resolve

# At BERT-base, one micro-batch, float16: forward, keys, losses and backward; uncompiled they are 1,218.
MOST_LAUNCHES = 1_039


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_products_stay_and_what_is_between_them_is_one_kernel():
    counter = CompiledCounter("meta")
    layers = nn.ModuleList([nn.Linear(8, 16), nn.Linear(16, 8)]).to("meta")
    with counter.compiling():
        run = torch.compile(lambda x: layers[1](torch.tanh(layers[0](x) * 2 + 1)) - x, dynamic=True)
    x = torch.empty(40, 8, device="meta")
    with counter:
        with counter.phase("forward"):
            loss = run(x)
        with counter.phase("backward"):
            loss.backward(torch.empty_like(loss))
    launched = {key: count for key, count in counter.launches.items() if key[0] == "forward"}
    assert launched == {("forward", "addmm"): 2, ("forward", "fused"): 2}
    assert counter.launches["backward", "mm"] >= 3 and counter.launches["backward", "fused"] >= 1
    assert all(parameter.grad is not None for parameter in layers.parameters())


@pytest.mark.slow
@pytest.mark.long
def test_a_compiled_step_at_bert_base_stays_within_its_launches_and_attends_packed():
    config = resolve([{"compile": True}])
    sizes = {f"{name}_dropout_prob": config.model.dropout for name in ("hidden", "attention_probs")}
    counter, model = count_step(config, BertConfig(vocab_size=60, **sizes), [make_batch(config, 0, 8)], "float16")
    assert not counter.waits
    assert all(parameter.grad is not None for parameter in model.parameters())
    launches = counter.launches_by_phase()
    assert sum(launches[phase] for phase in ("query", "keys", "losses", "backward")) <= MOST_LAUNCHES
    for phase, name in (("query", "_flash_attention_forward"), ("backward", "_flash_attention_backward")):
        assert counter.launches[phase, name] == 12
    assert counter.launches["keys", "_varlen_attn"] == 12
