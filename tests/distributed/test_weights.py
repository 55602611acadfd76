"""The key encoder follows DeepSpeed's float32 masters, wherever the engine keeps them."""

import copy

import pytest
import torch
from kept_state import whole_state
from torch import nn

from spe_dist.distributed.context import start_ranks
from spe_dist.distributed.engine import import_deepspeed
from spe_dist.distributed.launch import detect
from spe_dist.distributed.weights import Zero12Masters, weight_source
from spe_dist.moco import KeyQueue, MomentumContrast, MomentumKeyEncoder
from spe_dist.moco.layout import FlatLayout, join, merged

pytestmark = pytest.mark.distributed

MOMENTUM, STEPS = 0.9, 4
CASES = [  # stage, precision, whether the optimizer is offloaded
    (1, "bfloat16", False),
    (2, "float32", False),
    (2, "bfloat16", False),
    (2, "bfloat16", True),
    (3, "float32", False),
    (3, "bfloat16", False),
]


class Model(nn.Module):
    """Part `spe` is what the key encoder copies; sizes are odd, so that partitions are padded and cut parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.spe = nn.Sequential(nn.Linear(5, 67), nn.LayerNorm(67), nn.Linear(67, 1, bias=False), nn.Linear(1, 3))
        self.head = nn.Linear(3, 2)

    def forward(self, inputs):
        return self.head(self.spe(inputs))


def make_engine(stage, precision, offload):
    deepspeed = import_deepspeed("cpu")
    torch.manual_seed(0)
    model = Model()
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.01}, {"params": others}], lr=1e-3)
    config = {
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 2,
        "bf16": {"enabled": precision == "bfloat16"},
        "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 20},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    if stage < 3:
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    if offload:
        config["zero_optimization"]["offload_optimizer"] = {"device": "cpu"}
    key_module = copy.deepcopy(model.spe).to(getattr(torch, precision)).requires_grad_(False)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config, dist_init_required=False)
    return engine, key_module


def train_one_step(engine, context, step):
    for micro in range(2):
        generator = torch.Generator().manual_seed(100 * step + 10 * micro + context.rank)
        dtype = next(engine.module.parameters()).dtype
        engine.backward(engine(torch.randn(2, 5, generator=generator).to(dtype)).float().square().mean())
        engine.step()


def full_masters(module):
    from deepspeed.utils import safe_get_full_fp32_param

    return {name: safe_get_full_fp32_param(p).detach().clone().float() for name, p in module.named_parameters()}


def working_weights(module):
    import deepspeed

    weights = {}
    for name, parameter in module.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter], enabled=hasattr(parameter, "ds_id")):
            weights[name] = parameter.detach().clone()
    return weights


def check_case(case):
    """Everything that is asserted of one engine, on one rank."""
    precision = case[1]
    context = start_ranks(detect(), timeout_s=60)
    engine, key_module = make_engine(*case)
    query = engine.module.spe
    layout = FlatLayout.of(key_module)
    encoders = {
        average: MomentumKeyEncoder(
            copy.deepcopy(key_module), weight_source(query, context.rank, context.ranks), context, MOMENTUM, average
        )
        for average in ("sharded", "replicated")
    }
    source = encoders["sharded"].source
    by_rank = context.all_gather_object(list(source.intervals))
    layout.check_cover(by_rank)
    if isinstance(source, Zero12Masters):
        assert len(merged(source.pieces())) <= 2  # one of each parameter group
    for encoder in encoders.values():
        for parameter in encoder.module.parameters():
            parameter.zero_()
        encoder.start()
        for name, weight in working_weights(query).items():
            assert torch.equal(encoder.module.get_parameter(name), weight), f"{name} is no exact copy at the start"

    expected = {name: master.double() for name, master in full_masters(query).items()}
    for step in range(STEPS):
        train_one_step(engine, context, step)
        masters = full_masters(query)
        owned = join(source.pieces())
        for piece in layout.slices(source.intervals):
            whole = masters[piece.name].view(-1)[piece.start : piece.start + piece.length]
            part = owned[piece.joined_offset : piece.joined_offset + piece.length]
            assert torch.equal(whole, part), f"step {step}: {piece} is not the master"
        for name, master in masters.items():
            expected[name] = MOMENTUM * expected[name] + (1 - MOMENTUM) * master.double()
        for encoder in encoders.values():
            encoder.follow()
        moving = [n for n, m in masters.items() if not torch.equal(m, m.to(getattr(torch, precision)).float())]
        assert (precision == "float32") == (not moving), "masters resolve more than the working weights"

    states = {}
    for average, encoder in encoders.items():
        moco = MomentumContrast(encoder, KeyQueue(4, 3), KeyQueue(4, 3))
        moco.check_equal()
        states[average] = whole_state(moco, context)
        if context.rank == 0:
            for name, reference in expected.items():
                saved = states[average][f"key_average/{name}"]
                assert (saved.double() - reference).abs().max() < 1e-6, f"{average} {name}"
                assert torch.equal(encoder.module.get_parameter(name), saved.to(key_module[0].weight.dtype))
    for name, tensor in states["sharded"].items():
        assert torch.equal(tensor, states["replicated"][name]), name
    return sum(interval.length for interval in source.intervals)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"stage{c[0]}-{c[1]}{'-offload' if c[2] else ''}")
def test_the_average_follows_the_float32_masters_on_two_ranks(run_ranks, case):
    owned = run_ranks(check_case, 2, case)
    assert min(owned) > 0, "both ranks own a share"


def test_one_process_without_an_engine_follows_its_parameters():
    module = nn.Linear(3, 2)
    assert torch.equal(join(weight_source(module, 0, 1).pieces())[:6], module.weight.detach().view(-1))
