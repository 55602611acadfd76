"""DeepSpeed's float16 engine with an overflow: the step is skipped whole, and the run goes on from there."""

import math

import pytest
import torch
from float16_cpu import allow_float16
from kept_state import save_states
from small_steps import build_step, micro_batches, small_config, start

from spe_dist.pretraining.resume import restore

pytestmark = pytest.mark.distributed

STAGES = (1, 2, 3)
LOSS_SCALE = {"loss_scale": 0, "initial_scale_power": 8, "hysteresis": 1, "loss_scale_window": 3, "min_loss_scale": 1}
OVERFLOWING_STEP, SAVED_STEP, STEPS = 2, 4, 8


def float16_step(context, stage):
    config = small_config(dropout=0.1)
    return config, build_step(config, context, stage, 1, "float16", fp16=LOSS_SCALE)


def train(config, step, numbers):
    """Losses, gradient norms and loss scales of steps; that of `OVERFLOWING_STEP` overflows on the last rank alone."""
    context, rows = step.context, []
    for number in numbers:
        hook = None
        if number == OVERFLOWING_STEP and context.rank == context.ranks - 1:
            *_, parameter = step.engine.module.parameters()
            hook = parameter.register_hook(lambda gradient: gradient * math.inf)
        outcome = step(number, 1e-3, micro_batches(config, context, number, 1))
        if hook is not None:
            hook.remove()
        loss = sum(float(value) for name, value in outcome.sums.items() if name.endswith("/loss"))
        rows.append((outcome.applied, loss, float(step.engine.grad_norm()), step.engine.loss_scale()))
    return rows


def state_of(step):
    """Copies of all that a step moves: weights, masters, moments, key encoder and its average, queues with cursors."""
    found = [getattr(parameter, "ds_tensor", parameter) for parameter in step.engine.module.parameters()]
    found += [fragment.tensor for fragment in step.engine.fragments()]
    found.append(torch.tensor(step.engine.values()["adam_step"]))
    found += [*held_key_weights(step), *(fragment.tensor for fragment in step.moco.fragments())]
    return [value.detach().clone() for value in found]


def held_key_weights(step):
    """Those of the key encoder; at stage 3 no rank holds them whole, and its averages say what they are."""
    return [parameter for parameter in step.moco.key_module.parameters() if not parameter.is_meta]


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def overflow_and_resume(folder):
    """For each stage: the rows of a run, whether its skipped step moved anything, and the same run from its middle."""
    allow_float16()
    context, found = start(), {}
    for stage in STAGES:
        config, step = float16_step(context, stage)
        rows = train(config, step, range(OVERFLOWING_STEP))
        before = state_of(step)
        rows += train(config, step, [OVERFLOWING_STEP])
        unmoved = equal(before, state_of(step))
        rows += train(config, step, range(OVERFLOWING_STEP + 1, SAVED_STEP))
        moved = not equal(before, state_of(step))
        path = folder / f"{context.ranks}_{stage}"
        save_states(path, context, step.engine, step.moco)
        rest = train(config, step, range(SAVED_STEP, STEPS))
        _, resumed = float16_step(context, stage)
        restore(path, resumed.engine, resumed.moco)
        resumed_rest = train(config, resumed, range(SAVED_STEP, STEPS))
        found[stage] = {
            "rows": rows + rest,
            "unmoved": unmoved,
            "moved": moved,
            "same": equal(state_of(step), state_of(resumed)),
            "resumed": resumed_rest,
        }
    return found


@pytest.fixture(scope="module", params=[1, 2], ids=lambda ranks: f"ranks{ranks}")
def runs(run_ranks, tmp_path_factory, request):
    return run_ranks(overflow_and_resume, request.param, tmp_path_factory.mktemp("float16"))


@pytest.mark.parametrize("stage", STAGES)
def test_an_overflow_on_one_rank_skips_the_step_on_all_and_moves_nothing(runs, stage):
    for found in runs:
        assert found[stage]["unmoved"] and found[stage]["moved"]
        applied = [row[0] for row in found[stage]["rows"]]
        assert applied == [number != OVERFLOWING_STEP for number in range(STEPS)]
        norms = [row[2] for row in found[stage]["rows"]]
        assert [math.isinf(norm) for norm in norms] == [number == OVERFLOWING_STEP for number in range(STEPS)]
        assert norms == [row[2] for row in runs[0][stage]["rows"]]  # of all ranks


@pytest.mark.parametrize("stage", STAGES)
def test_the_loss_scale_falls_with_an_overflow_and_rises_after_steps_without_one(runs, stage):
    scales = [row[3] for row in runs[0][stage]["rows"]]
    assert scales == [256, 256, 128, 128, 128, 128, 256, 256]


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_resumed_after_an_overflow_goes_on_bit_by_bit(runs, stage):
    for found in runs:
        assert found[stage]["resumed"] == found[stage]["rows"][SAVED_STEP:]
        assert found[stage]["same"]
