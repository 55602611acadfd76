"""Overflow, norm and clipping in one pass against DeepSpeed's own methods, and the launches and waits of a step."""

import importlib

import pytest
import torch
from float16_cpu import allow_float16
from small_engines import BERT_BASE_PARAMETERS, make_engine, run_step
from small_steps import start

from spe_dist.benchmark.launches import LaunchCounter
from spe_dist.distributed import fused_checks

ENGINES = [(precision, stage) for precision in ("float16", "bfloat16", "mixed") for stage in (1, 2, 3)]
OPTIMIZERS = {
    "DeepSpeedZeroOptimizer": "deepspeed.runtime.zero.stage_1_and_2",
    "DeepSpeedZeroOptimizer_Stage3": "deepspeed.runtime.zero.stage3",
    "BF16_Optimizer": "deepspeed.runtime.bf16_optimizer",
}
NORMS = {0.0: False, 1.0: True}  # max_grad_norm: whether it clips
MOST_LAUNCHES, MOST_WAITS = 100, 3
FP16 = {"initial_scale_power": 4}


def steps_of(context, precision, stage, max_grad_norm):
    """Note for the user, norms and weights of three steps."""
    engine = make_engine(context, precision, stage, max_grad_norm, parameters=15, fp16=FP16)
    norms = []
    for number in range(3):
        assert run_step(engine, number)
        norms.append(float(engine.grad_norm()))
    return engine.note, norms, engine.master_weights(all_ranks=True)


def fused_and_own():
    allow_float16()
    context, found = start(), {}
    for precision, stage in ENGINES:
        for max_grad_norm in NORMS:
            fused = steps_of(context, precision, stage, max_grad_norm)
            known, fused_checks.KNOWN = fused_checks.KNOWN, {name: set() for name in OPTIMIZERS}
            own = steps_of(context, precision, stage, max_grad_norm)
            fused_checks.KNOWN = known
            found[precision, stage, max_grad_norm] = fused, own
    return found


@pytest.fixture(scope="module")
def compared(run_ranks):
    return run_ranks(fused_and_own, 2)


@pytest.mark.distributed
@pytest.mark.parametrize("max_grad_norm", NORMS)
@pytest.mark.parametrize(("precision", "stage"), ENGINES)
def test_norms_and_updates_are_those_of_deepspeeds_own_methods(compared, precision, stage, max_grad_norm):
    clips = NORMS[max_grad_norm]
    for found in compared:
        (_, norms, weights), (_, own_norms, own_weights) = found[precision, stage, max_grad_norm]
        assert norms == pytest.approx(own_norms, rel=3e-6)  # DeepSpeed takes that of bfloat16, stage 1, in float32
        assert min(norms) > 1.0
        for name, weight in weights.items():
            if clips:
                torch.testing.assert_close(weight, own_weights[name], rtol=1e-6, atol=1e-7, msg=name)
            else:
                assert torch.equal(weight, own_weights[name]), name


@pytest.mark.distributed
def test_an_unknown_deepspeed_keeps_its_own_methods_and_a_line_says_so(compared):
    for (precision, _, _), ((note, *_), (own_note, *_)) in compared[0].items():
        assert note is None, precision
        assert own_note.startswith("DeepSpeed ") and "its own checks of the gradients run" in own_note


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_deepspeeds_methods_are_those_that_were_replaced(imports_of_ranks, name):
    found = fused_checks.fingerprint(getattr(importlib.import_module(OPTIMIZERS[name]), name))
    assert found in fused_checks.KNOWN[name], (
        f"DeepSpeed has changed its gradient checks ({name}). Read the methods that fused_checks._methods lists. Where "
        f"they still mean the same, add {found!r} to fused_checks.KNOWN beside the older ones; where not, change "
        "FusedChecks or FlatGradients first. Until then runs use DeepSpeed's own methods, and say so."
    )


def counted_step(context, precision, stage):
    """Launches of an update, and waits of its whole step with the reading of its figures."""
    engine = make_engine(context, precision, stage, fp16=FP16)
    assert sum(1 for _ in engine.module.parameters()) == BERT_BASE_PARAMETERS
    for number in range(2):  # in the second, stage 3 notes the order of the parameters
        run_step(engine, number)
    counter, update = LaunchCounter("cpu"), engine.step

    def counted_update():
        with counter.phase("update"):
            update()

    engine.step = counted_update
    with counter, counter.phase("forward and backward"):
        assert run_step(engine, 2)
        engine.grad_norm(), engine.loss_scale()
    return counter.launches_by_phase()["update"], counter.waits.total()


def counted_steps():
    allow_float16()
    context = start()
    found = {engine: counted_step(context, *engine) for engine in [*ENGINES, ("mixed", 0)]}
    fused_checks.KNOWN = {name: set() for name in OPTIMIZERS}
    return found, counted_step(context, "float16", 1)


@pytest.mark.distributed
def test_an_update_of_many_parameters_takes_few_launches_and_waits(run_ranks):
    [(found, own)] = run_ranks(counted_steps, 1)
    for (precision, stage), (launches, waits) in found.items():
        assert 5 < launches <= MOST_LAUNCHES, (precision, stage, launches)
        assert waits <= (1 if precision != "bfloat16" and stage < 3 else MOST_WAITS), (precision, stage, waits)
    assert (
        found["float16", 1][0] <= 20 and own[0] > 3_500 and own[1] > MOST_WAITS
    )  # what is spared, and not for nothing
