"""The formulas of a step's traffic against what ranks hand to collectives, and what the kernel counts of it."""

import time

import pytest
from received_bytes import received_bytes
from small_steps import build_step, micro_batches, small_config, start

from spe_dist.benchmark.collectives import CollectiveCounter
from spe_dist.benchmark.pretraining.phases import WatchedStep
from spe_dist.benchmark.scaling.traffic import METRIC_NUMBERS, Plan, messages, sent_bytes

# Large enough for weights to be more than what is sent with them; a step's keys are few.
SIZES = {"hidden_size": 96, "intermediate_size": 384, "attention_heads": 2, "layers": 3}
GLOO_SENDS_LIKE = {"reduce-scatter": "all-reduce"}  # it scatters what it has reduced for all


def counted(stage, accumulation, precision, given, zero):
    """The plan, (calls, bytes) by kind, bytes received over TCP, and how many sums the metrics take."""
    config, context = small_config(**SIZES, queue_keys=100, **given), start()
    step = build_step(config, context, stage, accumulation, precision, zero)
    for number in range(2):  # stage 3 learns in which order the parts are used
        step(number, 1e-3, micro_batches(config, context, number, accumulation))
    step.moco.key_encoder.finish()
    context.barrier()
    before = received_bytes()
    with CollectiveCounter() as counter:
        outcome = step(2, 1e-3, micro_batches(config, context, 2, accumulation))
        step.moco.key_encoder.finish()
    time.sleep(0.2)  # until the kernel has counted what came last
    received = received_bytes() - before
    context.barrier()
    plan = Plan(
        parameters=step.engine.n_parameters(),
        key_parameters=sum(parameter.numel() for parameter in step.moco.key_module.parameters()),
        key_size=config.model.key_size,
        ranks=context.ranks,
        stage=stage,
        rank_sentences=config.train.global_batch_sentences // context.ranks,
        accumulation=accumulation,
        precision=precision,
        queue_dtype=config.moco.queue_dtype,
        average=config.moco.average,
        queue_keys=config.moco.queue_keys,
        queue=config.moco.queue,
        key_parts=len(step.moco.key_module.parts()) if step.moco.key_encoder.sharded else 0,
    )
    return plan, counter.by_kind(), received, sum(value.numel() for value in outcome.sums.values())


CASES = [
    (1, 1, "float32", {}, {}),
    (1, 2, "float32", {"average": "replicated"}, {}),
    (2, 2, "float32", {"queue_dtype": "float16"}, {}),
    (1, 2, "float32", {"queue": "sharded"}, {}),
    (1, 1, "bfloat16", {}, {}),
    (2, 1, "bfloat16", {}, {}),
    (3, 1, "float32", {}, {"stage3_param_persistence_threshold": 0}),
    (3, 2, "bfloat16", {}, {"stage3_param_persistence_threshold": 0}),
    (3, 2, "float32", {"key_weights": "whole"}, {"stage3_param_persistence_threshold": 0}),
]


@pytest.mark.distributed
@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.long)])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"zero{case[0]}-{case[1]}-{case[2]}")
def test_ranks_exchange_what_the_formulas_say(run_ranks, ranks, case):
    results = run_ranks(counted, ranks, *case)
    plan, found, _, sums = results[0]
    expected: dict[str, float] = {}
    for message in messages(plan):
        if message.purpose not in ("stop", "metrics"):  # of the loop around the step
            expected[message.kind] = expected.get(message.kind, 0.0) + message.handed
    assert found.keys() == expected.keys()
    for kind, size in expected.items():
        assert found[kind][1] == pytest.approx(size, rel=0.005, abs=64), kind
    network = sum(sent_bytes(GLOO_SENDS_LIKE.get(kind, kind), size, ranks) for kind, size in expected.items())
    received = sum(result[2] for result in results) / ranks  # what all send, all receive
    assert received == pytest.approx(network, rel=0.03)
    assert sums + 3 == METRIC_NUMBERS  # and pieces, waiting for data, memory


def base(ranks, stage, **given):
    """BERT-base with its heads and a vocabulary of 28,996, 256 sentences a rank."""
    return Plan(133_128_470, 109_962_112, 768, ranks, stage, 256, **given)


@pytest.mark.parametrize(
    "stage, expected",
    [
        (0, {"gradients": 532, "average": 220}),
        (1, {"gradients": 532, "weights": 266, "average": 266}),  # padded beyond 64 ranks
        (2, {"gradients": 532, "weights": 266, "average": 266}),
        (3, {"gradients": 266, "weights": 266, "average": 220}),
    ],
)
def test_megabytes_of_bert_base_on_many_gpus(stage, expected):
    sent = {m.purpose: sent_bytes(m.kind, m.handed, 1024) / 1e6 for m in messages(base(1024, stage))}
    for purpose, size in expected.items():
        assert sent[purpose] == pytest.approx(size, rel=0.002)
    assert sum(size for purpose, size in sent.items() if purpose in ("norm", "counts", "stop", "metrics")) < 0.02


def test_what_accumulation_sends_again():
    def handed(stage, accumulation, **given):
        plan = base(8, stage, accumulation=accumulation, **given)
        return {m.purpose: m.handed for m in messages(plan) if m.purpose in ("gradients", "weights", "average")}

    once = handed(1, 1)
    assert handed(1, 4) == once
    assert handed(2, 4) == {**once, "gradients": 4 * once["gradients"]}
    assert handed(3, 4)["weights"] == 4 * once["weights"] and handed(3, 4)["average"] == once["average"]
    assert handed(3, 4, key_parts=16)["average"] == 4 * once["average"]


def test_one_rank_sends_nothing():
    assert messages(base(1, 2)) == []


def test_a_ring_sends_twice_what_it_reduces_and_once_what_it_gathers():
    assert sent_bytes("all-reduce", 100, 2) == 100 and sent_bytes("all-gather", 100, 2) == 50
    assert sent_bytes("all-reduce", 100, 4) == 150 and sent_bytes("reduce-scatter", 100, 4) == 75
    assert sent_bytes("all-reduce", 100, 1) == 0


def watched_average():
    config, context = small_config(), start()
    step = build_step(config, context, stage=1, accumulation=1)
    seen = []

    class Watching:
        def __init__(self, name):
            self.name = name

        def __enter__(self):
            seen.append(self.name)

        def __exit__(self, *_):
            pass

    WatchedStep(step, Watching)
    step(0, 1e-3, micro_batches(config, context, 0, 1))
    step(1, 1e-3, micro_batches(config, context, 1, 1))
    return seen


@pytest.mark.distributed
def test_waiting_for_the_average_counts_as_the_average(run_ranks):
    for seen in run_ranks(watched_average, 2):
        second_step = seen[seen.index("query", seen.index("query") + 1) :]
        assert second_step[: second_step.index("keys")].count("average") >= 1
