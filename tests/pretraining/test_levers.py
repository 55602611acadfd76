"""What goes beyond the paper on real ranks: masked language modelling, decoders, an encoder that joins late."""

from types import SimpleNamespace

import pytest
import torch
from kept_state import load_states, save_states
from small_steps import build_descent_step, build_step, micro_batches, small_config, start

from spe_dist.distributed import local_gradients
from spe_dist.errors import ConfigError
from spe_dist.pretraining import build
from spe_dist.training.rates.groups import GroupRates, group_rates
from spe_dist.training.rates.schedule import Schedule

pytestmark = pytest.mark.distributed

ALL = {"mlm": True, "tbo_decoder": "tied", "mlm_decoder": "tied", "max_grad_norm": 0.0, "dropout": 0.2}
ALONE = {"mlm": True, "tbo": False, "spo": False, "cspo": False, "max_grad_norm": 0.0, "mlm_decoder": "embeddings"}
CUTS = [(2, 2, 1), (2, 1, 2), (2, 2, 3)]  # ranks, accumulation, stage


def gradients(accumulation, stage, kinds):
    """By settings: the gradient of a global batch, and its mean losses."""
    context, found = start(), []
    for given in kinds:
        config = small_config(**given)
        step = build_descent_step(config, context, stage, accumulation)
        before = step.engine.master_weights()
        outcome = step(0, 1.0, micro_batches(config, context, 0, accumulation))
        after = step.engine.master_weights()
        losses = {
            name: float(context.all_reduce_sum(outcome.sums[f"{name}/loss"].clone())) / count
            for name, count in outcome.counts.items()
            if f"{name}/loss" in outcome.sums
        }
        found.append(({name: before[name] - after[name] for name in before}, losses))
    return found


@pytest.fixture(scope="module")
def whole(run_ranks):
    return run_ranks(gradients, 1, 1, 1, [ALL, ALONE])[0]


@pytest.mark.parametrize(("ranks", "accumulation", "stage"), CUTS)
def test_losses_and_gradients_do_not_depend_on_ranks_and_stage(run_ranks, whole, ranks, accumulation, stage):
    found = run_ranks(gradients, ranks, accumulation, stage, [ALL, ALONE])[0]
    for (expected, expected_losses), (gradient, losses) in zip(whole, found, strict=True):
        assert losses == pytest.approx(expected_losses, rel=1e-6) and "mlm" in losses
        assert gradient.keys() == expected.keys()
        for name, wanted in expected.items():
            assert (gradient[name] - wanted).norm() <= 1e-5 * wanted.norm() + 1e-7, name


def large_table(accumulation, stage, kinds):
    local_gradients.LARGE_TABLE = 1  # its gradient stays, and is the sum of few rows and of the decoder's whole one
    return gradients(accumulation, stage, kinds)


def test_a_tied_table_gathers_both_gradients_at_stage_0(run_ranks, whole):
    found = run_ranks(large_table, 1, 2, 0, [ALL])[0]
    (expected, expected_losses), (gradient, losses) = whole[0], found[0]
    assert losses == pytest.approx(expected_losses, rel=1e-6)
    name = "spe.encoder.embeddings.word_embeddings.weight"
    assert (gradient[name] - expected[name]).norm() <= 1e-5 * expected[name].norm()


FROZEN = {"mlm": True, "tbo_decoder": "tied", "freeze_encoder_steps": 3, "layer_decay": 0.5, "dropout": 0.1}
STEPS = 6


def rates_of(config, step):
    schedule = Schedule(config.optimizer.learning_rate, 2, 10)
    return group_rates(step.engine.module, config.model.layers, config.optimizer, schedule)


def train(step, config, accumulation, numbers):
    rates = rates_of(config, step)
    for number in numbers:
        batches = micro_batches(config, step.context, number, accumulation)
        assert step(number, 1.0, batches, rates.at(number)).applied


def join_late(accumulation, stage, precision="float32", zero=None):
    """Weights at the start, after the frozen steps and at the end, and the key encoder's after the frozen steps."""
    context, config = start(), small_config(**FROZEN)
    step = build_step(config, context, stage, accumulation, precision, zero)
    weights = [step.engine.master_weights()]
    train(step, config, accumulation, range(3))
    weights.append(step.engine.master_weights())
    keys = {name: value.float().clone() for name, value in step.moco.key_module.named_parameters()} if stage < 3 else {}
    train(step, config, accumulation, range(3, STEPS))
    return [*weights, step.engine.master_weights()], keys


@pytest.fixture(scope="module")
def late(run_ranks):
    return run_ranks(join_late, 1, 1, 0)[0]


def test_a_frozen_encoder_stays_bit_for_bit_and_then_learns_lower_layers_less(late):
    (begun, frozen, ended), keys = late
    encoder = [name for name in begun if name.startswith("spe.encoder.")]
    assert all(torch.equal(begun[name], frozen[name]) for name in encoder)
    moved = [name for name in begun if name not in encoder and not torch.equal(begun[name], frozen[name])]
    assert len(moved) == len(begun) - len(encoder)
    assert all(torch.allclose(keys[name.removeprefix("spe.")], begun[name], atol=1e-7) for name in encoder)
    size = {
        layer: (ended[name] - begun[name]).abs().mean() / (ended[top] - begun[top]).abs().mean()
        for layer in range(1)
        for name, top in [[f"spe.encoder.encoder.layer.{i}.intermediate.dense.weight" for i in (0, 1)]]
    }
    assert 0.3 < size[0] < 0.7  # half the rate


OFFLOAD = {"offload_optimizer": {"device": "cpu"}}


@pytest.mark.parametrize(
    ("ranks", "accumulation", "stage", "zero"),
    [(1, 2, 1, None), (2, 1, 2, None), (2, 1, 3, None), (1, 2, 2, OFFLOAD), (1, 2, 3, OFFLOAD)],
)
def test_all_stages_freeze_and_join_alike(run_ranks, late, ranks, accumulation, stage, zero):
    weights, _ = run_ranks(join_late, ranks, accumulation, stage, "float32", zero)[0]
    for found, expected in zip(weights, late[0], strict=True):
        assert all(torch.allclose(found[name], expected[name], atol=2e-5) for name in expected)


def test_in_bfloat16_too(run_ranks):
    (begun, frozen, ended), _ = run_ranks(join_late, 1, 2, 1, "bfloat16")[0]
    encoder = [name for name in begun if name.startswith("spe.encoder.")]
    assert all(torch.equal(begun[name], frozen[name]) for name in encoder)
    assert any(not torch.equal(frozen[name], ended[name]) for name in encoder)


def resumed(saved_stage, stage, folder, at):
    """The end of a run that was saved after `at` steps, and that of one that was not."""
    context, config = start(), small_config(**FROZEN)
    step = build_step(config, context, saved_stage, 1)
    train(step, config, 1, range(at))
    save_states(folder, context, step.engine, step.moco)
    train(step, config, 1, range(at, STEPS))
    again = build_step(config, context, stage, 1)
    load_states(folder, context, again.engine, again.moco)
    train(again, config, 1, range(at, STEPS))
    return step.engine.master_weights(), again.engine.master_weights()


@pytest.mark.parametrize(("ranks", "stage", "at"), [(1, 0, 2), (1, 0, 3), (2, 2, 2), (2, 3, 4)])
def test_a_run_resumes_bit_for_bit_before_and_after_the_encoder_joins(run_ranks, tmp_path, ranks, stage, at):
    expected, found = run_ranks(resumed, ranks, stage, stage, tmp_path, at)[0]
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_an_encoder_that_joins_steps_as_a_fresh_adam_does():
    settings = small_config(freeze_encoder_steps=5).optimizer
    rates = GroupRates([(1.0, False), (1.0, True)], settings, Schedule(0.01, 0, 40))
    torch.manual_seed(0)
    late, fresh = (torch.nn.Parameter(torch.ones(8, dtype=torch.float64)) for _ in range(2))
    late_adam = torch.optim.AdamW([late], eps=1e-12, weight_decay=0.0)
    fresh_adam = torch.optim.AdamW([fresh], eps=1e-12, weight_decay=0.0)
    for number in range(30):
        gradient = torch.randn(8, dtype=torch.float64)
        at = rates.at(number)
        late.grad = torch.zeros_like(late) if at.encoder_is_frozen else gradient
        late_adam.param_groups[0]["lr"] = at.groups[1]
        late_adam.step()
        if not at.encoder_is_frozen:
            fresh.grad, fresh_adam.param_groups[0]["lr"] = gradient, at.encoder
            fresh_adam.step()
    assert torch.allclose(late, fresh, rtol=1e-9) and not torch.allclose(fresh, torch.ones_like(fresh), atol=0.01)


def test_a_run_that_would_end_before_its_encoder_joins_is_refused():
    with pytest.raises(ConfigError, match="freeze_encoder_steps=9 leaves the encoder no step of steps=9"):
        small_config(steps=9, freeze_encoder_steps=9).validate()
    config = small_config(epochs=2.0, freeze_encoder_steps=9)
    order = SimpleNamespace(steps_for=lambda epochs: int(4 * epochs))
    with pytest.raises(ConfigError, match="no step of the run's 8; lower it, or raise epochs"):
        build.total_steps(config, order)


def test_rates_rise_from_the_step_at_which_the_encoder_joins_until_they_meet_the_schedule():
    settings = small_config(freeze_encoder_steps=5, head_learning_rate=0.03, learning_rate=0.01).optimizer
    rates = GroupRates([(3.0, False), (0.5, True)], settings, Schedule(0.01, 4, 20))
    encoder = [rates.at(number).encoder for number in range(20)]
    assert encoder[:5] == [0.0] * 5
    assert encoder[5:8] == pytest.approx([0.0025, 0.005, 0.0075])
    assert encoder[8:] == pytest.approx([0.01 * (20 - number) / 16 for number in range(8, 20)])
    assert [rates.at(number).groups[0] for number in (3, 12)] == pytest.approx([0.03, 0.015])
