"""The training step on real ranks: what it computes must not depend on how the global batch is cut."""

import pytest
import torch

pytestmark = pytest.mark.distributed


def gradient_and_loss(small, config, stage, accumulation):
    """One step of plain gradient descent at rate 1 through the whole engine: the weights' change is the gradient."""
    step, context = small.build_step(
        config, stage, accumulation, small.sgd, zero_allow_untested_optimizer=True, zero_force_ds_cpu_optimizer=False
    )
    before = step.engine.master_weights()
    losses = {}
    for number in range(2):  # the second step has negatives in its queues
        batches = small.micro_batches(config, number, context.rank, context.ranks, accumulation)
        rate = 0.0 if number == 0 else 1.0
        outcome = step(number, rate, batches)
        for name in ("tbo", "spo", "cspo"):
            total = context.all_reduce_sum(outcome.sums[f"{name}/loss"].clone())
            losses[f"{name}{number}"] = total.item() / outcome.counts[name]
    after = step.engine.master_weights()
    if context.rank:
        return None
    return {name: before[name] - after[name] for name in before}, losses


@pytest.fixture(scope="module")
def reference():
    return {}


@pytest.mark.parametrize(("ranks", "accumulation", "stage"), [(1, 4, 1), (2, 2, 1), (4, 1, 1), (2, 2, 2), (2, 2, 3)])
def test_loss_and_gradient_do_not_depend_on_the_cut(run_ranks, small, reference, ranks, accumulation, stage):
    config = small.config(max_grad_norm=0.0, permutations=1)
    gradient, losses = run_ranks(gradient_and_loss, ranks, small, config, stage, accumulation)[0]
    reference.setdefault("gradient", gradient)
    reference.setdefault("losses", losses)
    for name, value in losses.items():
        assert value == pytest.approx(reference["losses"][name], rel=1e-6), name
    expected = torch.cat([g.reshape(-1) for g in reference["gradient"].values()])
    found = torch.cat([gradient[name].reshape(-1) for name in reference["gradient"]])
    assert expected.norm() > 0.1
    assert (found - expected).norm() <= 1e-5 * expected.norm()


def train_queues(small, config, stage, accumulation, steps):
    step, context = small.build_step(config, stage, accumulation)
    for number in range(steps):
        batches = small.micro_batches(config, number, context.rank, context.ranks, accumulation)
        outcome = step(number, 1e-3, batches)
        assert outcome.applied
        step.moco.check_equal()
    state = step.moco.state_dict()
    return state if context.is_main else None


@pytest.mark.parametrize(("ranks", "accumulation", "stage"), [(1, 1, 1), (1, 4, 1), (2, 1, 2), (2, 2, 3), (4, 2, 2)])
def test_queues_of_many_ranks_are_those_of_one(run_ranks, small, reference, ranks, accumulation, stage):
    config = small.config(normalize=ranks > 0, queue_keys=20)  # 8 keys a step: wraps in the third, in the middle
    state = run_ranks(train_queues, ranks, small, config, stage, accumulation, 4)[0]
    expected = reference.setdefault("queues", state)
    for queue in ("pair_queue", "context_queue"):
        assert torch.equal(state[queue]["ids_K"], expected[queue]["ids_K"])
        assert state[queue]["cursor"] == expected[queue]["cursor"] == (4 * 8) % 20
        assert (state[queue]["keys_KC"] - expected[queue]["keys_KC"]).abs().max() <= 1e-5


@pytest.mark.parametrize("off", [("tbo",), ("spo",), ("cspo",), ("tbo", "spo"), ("spo", "cspo"), ("tbo", "cspo")])
def test_every_set_of_objectives_trains_on_unequal_ranks(run_ranks, small, off):
    """Rank 1 gets sentences without multi-piece words or wide spans: heads without examples must not hang or crash."""

    def train(config):
        step, context = small.build_step(config, 3, 1)
        batches = small.micro_batches(config, 0, context.rank, context.ranks, 1)
        outcome = step(0, 1e-3, batches)
        return sorted(outcome.sums), outcome.counts

    config = small.config(**dict.fromkeys(off, False))
    (names, counts), _ = run_ranks(train, 2, config)
    assert {name.split("/")[0] for name in names} == {"tbo", "spo", "cspo"} - set(off)
    assert counts["cspo"] == 8


def test_a_rank_without_targets_trains_with_one_that_has_some(run_ranks, small):
    def train(config):
        step, context = small.build_step(config, 3, 1)
        batches = small.micro_batches(config, 0, context.rank, context.ranks, 1)
        if context.rank == 1:
            none = batches[0].tbo_label_M[:0]
            fields = dict.fromkeys(
                ("tbo_first_piece_M", "tbo_offset_M", "tbo_label_M", "spo_span_P", "spo_label_P"), none
            )
            batches = [type(batches[0])(**{**vars(batches[0]), **fields})]
        outcome = step(0, 1e-3, batches)
        return outcome.counts, step.engine.grad_norm()

    results = run_ranks(train, 2, small.config())
    assert results[0] == results[1]
    assert results[0][1] > 0


def test_a_stop_inside_a_step_drops_it(run_ranks, small):
    def train(config):
        step, context = small.build_step(config, 2, 2)
        step.stop_agreed = lambda: True
        before = step.moco.state_dict()
        dropped = step(0, 1e-3, small.micro_batches(config, 0, context.rank, context.ranks, 2))
        after = step.moco.state_dict()
        return dropped is None, context.rank != 0 or all(
            torch.equal(before["average"][name], after["average"][name]) for name in before["average"]
        )

    assert run_ranks(train, 2, small.config()) == [(True, True)] * 2
