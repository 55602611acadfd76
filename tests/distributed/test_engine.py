"""What the engine changes in DeepSpeed's own ways."""

import math
from dataclasses import is_dataclass

import pytest
import torch
from float16_cpu import allow_float16
from kept_state import load_states, save_states
from small_engines import make_engine, run_step
from small_steps import build_step, micro_batches, small_config, start

pytestmark = pytest.mark.distributed


def overflow_for_long(stage, folder):
    """Loss scales of 30 steps that overflow, of a new engine and of one that continues from a checkpoint."""
    allow_float16()
    context, found = start(), []
    for loaded in (False, True):
        engine = make_engine(context, "float16", stage, parameters=5, fp16={"initial_scale_power": 4, "hysteresis": 2})
        if loaded:
            save_states(folder, context, engine)
            load_states(folder, context, engine)
        scales = []
        for number in range(30):
            assert not run_step(engine, number, scale=math.inf)
            scales.append(engine.loss_scale())
        assert run_step(engine, 30)
        found.append(scales)
    return found


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_overflow_at_the_smallest_loss_scale_is_one_more_skipped_step(run_ranks, tmp_path, stage):
    """DeepSpeed raises there, after fewer steps than `max_skipped_steps` waits for to say what to do."""
    [(new, loaded)] = run_ranks(overflow_for_long, 1, stage, tmp_path)
    assert new == loaded == [16.0, 8.0, 4.0, 2.0] + [1.0] * 26


def clip_after_loading(folder):
    context = start()
    engines = [make_engine(context, "float32", stage, norm, parameters=5) for stage in (1, 3) for norm in (1.0, 0.25)]
    for number, engine in enumerate(engines):
        run_step(engine, 0)
        save_states(folder / f"{number}", context, engine)
    return [
        (load_states(folder / f"{number - 1}", context, engine), engine._engine.optimizer.clip_grad)[1]
        for number, engine in enumerate(engines)
        if number % 2
    ]


def test_a_loaded_engine_clips_by_its_own_setting_not_by_the_checkpoints(run_ranks, tmp_path):
    assert run_ranks(clip_after_loading, 1, tmp_path) == [[0.25, 0.25]]


def unseen_outputs():
    """Modules with weights of their own that take or give gradients by tensors where stage 3's hooks do not look."""
    context = start()
    step = build_step(small_config(mlm=True), context, 0, 1)
    found, called = [], []

    def look(module, inputs, output):
        called.append(module)
        hidden = [part for value in leaves([inputs, output]) if is_dataclass(value) for part in vars(value).values()]
        if any(isinstance(part, torch.Tensor) and part.requires_grad for part in hidden):
            found.append(type(module).__name__)

    for module in step.engine.module.modules():
        if any(True for _ in module.parameters(recurse=False)):
            module.register_forward_hook(look)
    step(0, 1e-3, micro_batches(step.config, context, 0, 1))
    return found, len(called)


def leaves(value):
    if isinstance(value, (tuple, list)):
        return [leaf for part in value for leaf in leaves(part)]
    return [leaf for part in value.values() for leaf in leaves(part)] if isinstance(value, dict) else [value]


def test_deepspeeds_warning_that_is_not_shown_is_wrong(run_ranks):
    [(found, called)] = run_ranks(unseen_outputs, 1)
    assert called > 20 and found == []
