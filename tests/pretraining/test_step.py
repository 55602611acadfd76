"""The training step on real ranks: what it computes must not depend on how the global batch is cut."""

import itertools

import pytest
import torch
from kept_state import whole_state
from small_steps import build_descent_step, build_step, micro_batches, small_config, start

from spe_dist.errors import DivergenceError

pytestmark = pytest.mark.distributed

STEPS, QUEUE_KEYS = 4, 20  # 8 keys a step: the queue wraps in the third, in its middle
# ranks, accumulation, ZeRO stage, setting of the queue
CUTS = [
    *((1, 4, 1, "replicated"), (2, 2, 1, "replicated"), (2, 1, 2, "replicated"), (2, 2, 3, "replicated")),
    *((4, 2, 2, "replicated"), (1, 2, 1, "sharded"), (2, 2, 1, "sharded"), (2, 1, 3, "sharded"), (4, 2, 2, "sharded")),
]


def gradient_and_losses(context, accumulation, stage, queue="replicated", settings=None, **given):
    """A step of plain gradient descent at rate 1 through the whole engine: the weights' change is the gradient."""
    config = small_config(**{"max_grad_norm": 0.0, "permutations": 1, "queue": queue, **(settings or {})})
    step = build_descent_step(config, context, stage, accumulation, **given)
    before = step.engine.master_weights()
    losses = {}
    for number, rate in enumerate((0.0, 1.0)):  # the second step has negatives in its queues
        outcome = step(number, rate, micro_batches(config, context, number, accumulation))
        for name in ("tbo", "spo", "cspo"):
            total = context.all_reduce_sum(outcome.sums[f"{name}/loss"].clone())
            losses[f"{name}{number}"] = total.item() / outcome.counts[name]
    after = step.engine.master_weights()
    return (
        torch.cat([(before[name] - after[name]).reshape(-1) for name in before]) if context.is_main else None
    ), losses


def trained_queues(context, accumulation, stage, queue):
    config = small_config(queue_keys=QUEUE_KEYS, queue=queue)
    step = build_step(config, context, stage, accumulation)
    for number in range(STEPS):
        assert step(number, 1e-3, micro_batches(config, context, number, accumulation)).applied
        step.moco.check_equal()
    return whole_state(step.moco, context)


def train_both(accumulation, stage, queue="replicated"):
    context = start()
    gradient, losses = gradient_and_losses(context, accumulation, stage, queue)
    return gradient, losses, trained_queues(context, accumulation, stage, queue)


@pytest.fixture(scope="module")
def whole(run_ranks):
    """Gradient, losses and queues of one rank that takes the global batch in one piece."""
    return run_ranks(train_both, 1, 1, 1)[0]


@pytest.fixture(scope="module", params=CUTS, ids=lambda cut: "ranks{}-accumulation{}-stage{}-{}".format(*cut))
def cut(run_ranks, request):
    """The same of other numbers of ranks, as rank 0 has it."""
    ranks, *given = request.param
    return run_ranks(train_both, ranks, *given)[0]


def test_loss_and_gradient_do_not_depend_on_the_cut(whole, cut):
    (expected, expected_losses, _), (gradient, losses, _) = whole, cut
    assert losses == pytest.approx(expected_losses, rel=1e-6)
    assert expected.norm() > 0.1
    assert (gradient - expected).norm() <= 1e-5 * expected.norm()


WITH_DROPOUT = {"dropout": 0.3, "key_dropout": True, "permutations": 3}


def train_with_dropout(accumulation, stage, queue, settings):
    return gradient_and_losses(start(), accumulation, stage, queue, settings)


@pytest.fixture(scope="module")
def whole_with_dropout(run_ranks):
    return run_ranks(train_with_dropout, 1, 1, 1, "replicated", WITH_DROPOUT)[0]


@pytest.mark.parametrize(("ranks", "accumulation", "stage", "queue"), [*CUTS[:5], CUTS[6]])
def test_dropout_by_slots_does_not_depend_on_the_cut(run_ranks, whole_with_dropout, ranks, accumulation, stage, queue):
    (expected, expected_losses) = whole_with_dropout
    gradient, losses = run_ranks(train_with_dropout, ranks, accumulation, stage, queue, WITH_DROPOUT)[0]
    assert losses == pytest.approx(expected_losses, rel=1e-6)
    assert (gradient - expected).norm() <= 1e-5 * expected.norm()


def test_dropout_by_ranks_does(run_ranks, whole_with_dropout):
    _, losses = run_ranks(train_with_dropout, 2, 1, 1, "replicated", {**WITH_DROPOUT, "dropout_seed": "rank"})[0]
    assert losses["tbo0"] != pytest.approx(whole_with_dropout[1]["tbo0"], rel=1e-4)


BUCKETS = {"reduce_bucket_size": 1_000}  # several are full before a backward pass has ended
OFFLOAD = {**BUCKETS, "offload_optimizer": {"device": "cpu"}}
ENGINES = {
    "stage 1 in bfloat16": (1, {"precision": "bfloat16"}),
    "stage 2 in bfloat16": (2, {"precision": "bfloat16"}),
    "stage 3 in bfloat16": (3, {"precision": "bfloat16"}),
    "stage 2 in mixed precision": (2, {"precision": "mixed"}),
    "stage 3 in mixed precision": (3, {"precision": "mixed"}),
    "stage 2 with many buckets": (2, {"zero": BUCKETS}),
    "stage 1 with offload": (1, {"zero": OFFLOAD}),
    "stage 2 with offload": (2, {"zero": OFFLOAD}),
    "stage 3 with offload": (3, {"zero": OFFLOAD}),
}


@pytest.fixture(scope="module")
def accumulated(run_ranks):
    """Gradient and losses of one rank that takes the global batch in four pieces, by engine."""

    def train():
        context = start()
        return {name: gradient_and_losses(context, 4, stage, **given) for name, (stage, given) in ENGINES.items()}

    return run_ranks(train, 1)[0]


@pytest.mark.parametrize("engine", ENGINES)
def test_gradients_are_the_mean_of_those_of_the_micro_batches(whole, accumulated, engine):
    (expected, expected_losses, _), (gradient, losses) = whole, accumulated[engine]
    tolerance = 0.05 if "bfloat16" in engine or "mixed" in engine else 1e-5
    assert losses == pytest.approx(expected_losses, rel=tolerance)
    assert (gradient - expected).norm() <= tolerance * expected.norm()


def test_queues_of_many_ranks_are_those_of_one(whole, cut):
    expected, state = whole[2], cut[2]
    for queue in ("pair_queue", "context_queue"):
        assert torch.equal(state[f"{queue}/ids_K"], expected[f"{queue}/ids_K"])
        assert state[f"{queue}/cursor"] == expected[f"{queue}/cursor"] == (STEPS * 8) % QUEUE_KEYS
        assert (state[f"{queue}/keys_KC"] - expected[f"{queue}/keys_KC"]).abs().max() <= 1e-5


def test_every_set_of_objectives_trains(run_ranks):
    objectives = ("tbo", "spo", "cspo")
    subsets = [set(some) for n in (1, 2) for some in itertools.combinations(objectives, n)]

    def train():
        context = start()
        for on in subsets:
            config = small_config(**{name: name in on for name in objectives})
            outcome = build_step(config, context, 3, 1)(0, 1e-3, micro_batches(config, context, 0, 1))
            assert {name.split("/")[0] for name in outcome.sums} == on
            assert outcome.applied and outcome.counts["cspo"] == 8

    run_ranks(train, 2)


def test_contrast_alone_over_sharded_queues_counts_what_the_replicated_ones_do(run_ranks):
    """Every sum of the metrics, over steps in which the queues are empty, fill and wrap around."""

    def train():
        context, seen = start(), []
        for queue in ("replicated", "sharded"):
            config = small_config(queue=queue, queue_keys=QUEUE_KEYS, tbo=False, spo=False)
            step = build_step(config, context, 1, 2)
            for number in range(STEPS):
                outcome = step(number, 1e-3, micro_batches(config, context, number, 2))
            seen.append({name: context.all_reduce_sum(value.clone()).item() for name, value in outcome.sums.items()})
        return seen

    for replicated, sharded in run_ranks(train, 2):
        assert replicated.keys() == sharded.keys() and replicated["cspo/ranked"] == 8
        for name, value in replicated.items():
            assert sharded[name] == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize("where", ["gathered keys", "held keys"])
def test_sharded_queues_that_differ_from_what_they_should_hold_are_named(run_ranks, where):
    def train():
        context, config = start(), small_config(queue="sharded")
        step = build_step(config, context, 1, 1)
        step(0, 1e-3, micro_batches(config, context, 0, 1))
        step.moco.check_equal()
        queue = step.moco.pair_queue
        if context.rank == 1:
            if where == "held keys":
                queue.keys_LC[0, 0] += 1
            else:
                queue.enqueue(torch.ones(1, queue.key_size), torch.ones(1, dtype=torch.int64))
        else:
            queue.enqueue(torch.zeros(1, queue.key_size), torch.ones(1, dtype=torch.int64))
        if where == "held keys" and context.rank == 1:
            queue.enqueue(torch.zeros(1, queue.key_size), torch.ones(1, dtype=torch.int64))
        expected = {
            "gathered keys": r"pair queue keys that entered \(rank 0 against rank 1\)",
            "held keys": r"ranks \[1\] hold of the pair queue are not what was written",
        }
        with pytest.raises(DivergenceError, match=expected[where]):
            step.moco.check_equal()

    run_ranks(train, 2)


def test_a_rank_without_targets_trains_with_one_that_has_some(run_ranks):
    """Sentences without multi-piece words or wide spans: heads without examples must not hang or crash."""

    def train():
        context, config = start(), small_config()
        step, batches = build_step(config, context, 3, 1), micro_batches(config, context, 0, 1)
        if context.rank == 1:
            none = batches[0].tbo_label_M[:0]
            fields = dict.fromkeys(
                ("tbo_first_piece_M", "tbo_offset_M", "tbo_label_M", "spo_span_P", "spo_label_P"), none
            )
            batches = [type(batches[0])(**{**vars(batches[0]), **fields})]
        outcome = step(0, 1e-3, batches)
        return outcome.counts, step.engine.grad_norm()

    results = run_ranks(train, 2)
    assert results[0] == results[1]
    assert results[0][1] > 0


def test_a_stop_inside_a_step_drops_it(run_ranks):
    def train():
        context, config = start(), small_config()
        step = build_step(config, context, 2, 2)
        step.stop_agreed = lambda: True
        before = whole_state(step.moco, context)
        dropped = step(0, 1e-3, micro_batches(config, context, 0, 2))
        after = whole_state(step.moco, context)
        return dropped is None, all(torch.equal(before[name], after[name]) for name in before)

    assert run_ranks(train, 2) == [(True, True)] * 2


def test_a_step_that_the_engine_skips_moves_neither_average_nor_queues(run_ranks):
    def train():
        context, config = start(), small_config()
        step = build_step(config, context, 1, 2)
        step(0, 1e-3, micro_batches(config, context, 0, 2))
        before = whole_state(step.moco, context)
        step.engine.was_step_applied = lambda: False
        assert not step(1, 1e-3, micro_batches(config, context, 1, 2)).applied
        skipped = whole_state(step.moco, context)
        del step.engine.was_step_applied
        assert step(2, 1e-3, micro_batches(config, context, 2, 2)).applied
        return before, skipped, whole_state(step.moco, context)

    before, skipped, moved = run_ranks(train, 2)[0]
    for name, tensor in before.items():
        assert torch.equal(skipped[name], tensor), name
    assert before["pair_queue/fill"] == before["context_queue/cursor"] == 8
    for part in ("key_average", "key_compensation", "pair_queue", "context_queue"):
        assert any(not torch.equal(moved[n], tensor) for n, tensor in before.items() if n.startswith(f"{part}/"))
    assert moved["pair_queue/fill"] == 16
