"""Time of a step from bytes and assumptions, what to set, and the command."""

import json
from dataclasses import replace

import pytest

from spe_dist.benchmark.pretraining.work import Work
from spe_dist.benchmark.scaling.model import GOAL, Cluster, advise, estimate
from spe_dist.benchmark.scaling.network import Network
from spe_dist.benchmark.scaling.traffic import MOST_IN_A_RING, Plan
from spe_dist.cli import benchmark
from spe_dist.distributed.collectives import few_numbers

PLAN = Plan(133_128_470, 109_962_112, 768, 64, 1, 256)
FLOPS = 38.3e9


def test_one_rank_computes_all_the_time():
    step = estimate(replace(PLAN, ranks=1), Cluster(), FLOPS)
    assert step.efficiency == 1 and step.sent == {}
    assert step.compute_s == pytest.approx(256 * FLOPS / 390e12, rel=0.1)


def test_a_step_by_hand():
    cluster = Cluster(network_gb_s=50, network_us=0, control_us=0, control_round_us=0)
    step = estimate(replace(PLAN, key_parameters=0), cluster, FLOPS)
    others = 63 / 64
    assert step.exchange_s["gradients"] == pytest.approx(2 * others * 2 * 133_128_470 / 50e9)
    assert step.exchange_s["weights"] == pytest.approx(others * 2 * 133_128_470 / 50e9)
    assert step.waiting_s == pytest.approx(step.exchange_s["gradients"] + step.exchange_s["weights"], rel=1e-3)


def test_latency_grows_with_the_ranks_and_bandwidth_falls_where_the_machine_ends():
    inside, outside, far = (estimate(replace(PLAN, ranks=ranks), Cluster(), FLOPS) for ranks in (8, 16, 1024))
    assert inside.exchange_s["weights"] < 0.2 * outside.exchange_s["weights"]
    assert outside.exchange_s["norm"] < far.exchange_s["norm"] and outside.exchange_s["stop"] < far.exchange_s["stop"]


def test_few_numbers_take_a_ring_of_few_ranks_and_pairs_of_many():
    assert MOST_IN_A_RING == few_numbers.MOST_IN_A_RING
    seconds = {ranks: estimate(replace(PLAN, ranks=ranks), Cluster(), FLOPS).exchange_s for ranks in (2, 8, 9, 1024)}
    rounds = {2: 2 * 30e-6, 8: 14 * 30e-6, 9: 5 * 150e-6, 1024: 10 * 150e-6}
    assert all(seconds[ranks]["counts"] == pytest.approx(expected) for ranks, expected in rounds.items())


def test_the_next_forward_pass_hides_the_average_and_the_backward_pass_reductions():
    plan, slow = replace(PLAN, ranks=8), Cluster(node_gb_s=45)
    one, two = estimate(plan, slow, FLOPS), estimate(replace(plan, stage=2), slow, FLOPS)
    alone = sum(one.exchange_s.values())
    assert alone - one.waiting_s == pytest.approx(one.exchange_s["average"])
    assert alone - two.waiting_s == pytest.approx(one.exchange_s["average"] + one.exchange_s["gradients"] * 2 / 3)
    none_hidden = estimate(replace(plan, average="replicated"), slow, FLOPS)
    assert none_hidden.waiting_s == pytest.approx(sum(none_hidden.exchange_s.values()))


def test_a_slow_loader_is_waited_for():
    fast = estimate(PLAN, Cluster(), FLOPS)
    slow = estimate(PLAN, Cluster(loader_rate=1_000), FLOPS)
    assert fast.data_s == 0 and slow.seconds == pytest.approx(256 / 1_000)


@pytest.mark.parametrize("ranks", [2, 8, 64, 1024])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_advice_is_given_below_the_goal_and_helps(ranks, stage):
    plan = replace(PLAN, ranks=ranks, stage=stage)
    before = estimate(plan, Cluster(), FLOPS).efficiency
    advice = advise(plan, Cluster(), FLOPS)
    if before >= GOAL:
        assert advice is None
    else:
        assert advice is not None and estimate(advice.plan, Cluster(), FLOPS).efficiency > before
        assert (advice.plan.stage == 0) == (stage == 0)
        assert ("--global_batch_sentences" in " ".join(advice.options)) == (advice.plan.rank_sentences > 256)


def test_settings_are_changed_and_then_the_batch_grows():
    plan = replace(PLAN, stage=2, accumulation=2, rank_sentences=512, average="replicated")
    advice = advise(plan, Cluster(), FLOPS)
    assert advice is not None
    *options, batch = advice.options
    assert options == ["--deepspeed zero1", "--queue_dtype float16", "--average sharded"]
    assert batch == f"--global_batch_sentences {advice.plan.global_batch} --micro_batch_sentences 256"
    assert estimate(advice.plan, Cluster(), FLOPS).efficiency >= GOAL
    enough = advise(plan, Cluster(node_gb_s=1e4, network_gb_s=1e3), FLOPS)
    assert enough is not None and enough.options == ("--deepspeed zero3",)  # the batch stays as it is


def test_a_small_micro_batch_grows_before_micro_batches_are_added():
    advice = advise(replace(PLAN, ranks=8, rank_sentences=32), Cluster(), FLOPS)
    assert advice is not None and advice.plan.accumulation == 1 and advice.plan.rank_sentences > 32


def test_a_network_is_found_without_allocating_it():
    network = Network.of(Work("2x128", {"view_masks": "each"}), "float16")
    assert network.parameters == 9_426_070 and 0 < network.key_parameters < network.parameters
    assert 50 < network.sentence_pieces < 62
    memory = network.memory(network.plan(8, 2, 32, 1))
    assert memory["queues"] == 2 * 65_536 * (4 * 768 + 8)
    assert memory["masters"] + memory["moments"] == 12 * -(-network.parameters // 8)
    larger = network.memory(network.plan(8, 2, 64, 1))
    assert larger["forward and backward"] == pytest.approx(2 * memory["forward and backward"], rel=0.01)


def test_sharded_queues_take_a_share_of_the_memory_and_send_queries():
    network = Network.of(Work("2x128", {"queue": "sharded"}), "float16")
    plan = network.plan(8, 2, 32, 1)
    memory = network.memory(plan)
    assert memory["queues"] == 2 * 65_536 // 8 * (4 * 768 + 8)
    assert memory["queries of all ranks"] < memory["queues"] / 10
    sent = estimate(plan, Cluster(), FLOPS).sent
    assert sent["contrast"] == pytest.approx(7 / 8 * 256 * (16 * 768 + 48))
    assert "contrast" not in estimate(replace(plan, queue="replicated"), Cluster(), FLOPS).sent


def test_the_command_prints_tables_and_writes_json(tmp_path, capsys):
    file = tmp_path / "figures.json"
    options = ["scaling", "--size", "2x128", "--ranks", "1,8,64", "--stages", "1,3", "--json", str(file)]
    assert benchmark.main(options) == 0
    out = capsys.readouterr().out
    assert "what a rank sends in a step" in out and "assumed: product_tflops 780" in out
    found = json.loads(file.read_text())
    assert [(row["plan"]["stage"], row["plan"]["ranks"]) for row in found["rows"]] == [
        (stage, ranks) for stage in (1, 3) for ranks in (1, 8, 64)
    ]
    assert benchmark.main([*options, "--global_batch", "64"]) == 0
    assert benchmark.main([*options, "--global_batch", "100"]) == 2
    assert "global_batch=100 is not divisible by 8 ranks" in capsys.readouterr().err
