"""From a plan and assumptions on a cluster to the time of a step, its memory, and what to set. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from spe_dist.benchmark.scaling.traffic import (
    BUCKET,
    IN_PAIRS,
    WIDTHS,
    Message,
    Plan,
    messages,
    rounds_in_pairs,
    sent_bytes,
)

GOAL = 0.9  # efficiency below which something should be set otherwise
ADAM_BYTES = 4 * 4 + 3 * 4  # read master, two moments and gradient, write all but the gradient: in float32
AVERAGE_BYTES = 3 * 4 + 2 * 4  # read master, average and compensation, write the last two
FORWARD_OF_QUERY = 1 / 4  # of a step's products: forward, two for backward, keys
BACKWARD = 1 / 2
LEAST_GAIN = 0.005  # of efficiency, for which a setting is worth changing
MOST_GROWTH = 16  # of the global batch
FULL_MICRO_BATCH = 256  # sentences with which launches no longer count


@dataclass(frozen=True)
class Cluster:
    """Assumptions, each an option of `spe benchmark scaling`.

    Attributes:
        product_tflops: rate of a plain product on one GPU.
        share: of that rate which the model's products reach.
        memory_tb_s: bandwidth of a GPU's memory.
        node_ranks: GPUs of a machine.
        node_gb_s: what a GPU sends to others of its machine, each way.
        network_gb_s: what a GPU sends over the network, each way.
        node_us, network_us: latency of one hop.
        control_us: latency of one hop between the CPUs of two ranks, in gloo's ring.
        control_round_us: of one round in which CPUs of ranks exchange numbers in pairs.
        loader_rate: sentences a second that one loader process prepares.
        loader_workers: such processes a rank.
    """

    product_tflops: float = 780.0
    share: float = 0.5
    memory_tb_s: float = 4.3
    node_ranks: int = 8
    node_gb_s: float = 350.0
    network_gb_s: float = 45.0
    node_us: float = 3.0
    network_us: float = 10.0
    control_us: float = 30.0
    control_round_us: float = 150.0
    loader_rate: float = 45_000.0
    loader_workers: int = 1


@dataclass(frozen=True)
class Step:
    """One step of every rank, in seconds."""

    compute_s: float
    exchange_s: Mapping[str, float]  # by purpose, as if nothing else ran
    waiting_s: float  # for exchanges that nothing hides
    data_s: float  # for the loader beyond the rest of the step
    sent: Mapping[str, float]  # bytes that a rank sends, by purpose

    @property
    def seconds(self) -> float:
        return self.compute_s + self.waiting_s + self.data_s

    @property
    def efficiency(self) -> float:
        """Share of the step in which the GPU computes."""
        return self.compute_s / self.seconds


def estimate(plan: Plan, cluster: Cluster, sentence_flops: float) -> Step:
    """The step of a plan, with so many operations a sentence."""
    products_s = plan.rank_sentences * sentence_flops / (cluster.product_tflops * 1e12 * cluster.share)
    compute_s = products_s + updated_bytes(plan) / (cluster.memory_tb_s * 1e12)
    exchange_s: dict[str, float] = {}
    sent: dict[str, float] = {}
    for message in messages(plan):
        seconds = _seconds(message, plan.ranks, cluster)
        exchange_s[message.purpose] = exchange_s.get(message.purpose, 0.0) + seconds
        size = sent_bytes(message.kind, message.handed, plan.ranks)
        sent[message.purpose] = sent.get(message.purpose, 0.0) + size
    waiting_s = sum(exchange_s.values()) - sum(_hidden(plan, exchange_s, products_s).values())
    data_s = plan.rank_sentences / (cluster.loader_rate * cluster.loader_workers) - compute_s - waiting_s
    return Step(compute_s, exchange_s, waiting_s, max(0.0, data_s), sent)


def updated_bytes(plan: Plan) -> float:
    """What the optimizer and the average move through the memory of one GPU in a step."""
    width, ranks = WIDTHS[plan.precision], plan.ranks
    optimizer = (ADAM_BYTES + width) * plan.parameters / (ranks if plan.stage else 1)
    return optimizer + (AVERAGE_BYTES + width) * plan.key_parameters / (ranks if plan.average == "sharded" else 1)


def _seconds(message: Message, ranks: int, cluster: Cluster) -> float:
    if message.kind == IN_PAIRS:
        return message.calls * rounds_in_pairs(ranks) * cluster.control_round_us * 1e-6
    if message.control:
        return message.calls * 2 * (ranks - 1) * cluster.control_us * 1e-6
    hops = math.ceil(math.log2(ranks)) * (2 if message.kind == "all-reduce" else 1)
    within = ranks <= cluster.node_ranks
    bandwidth = (cluster.node_gb_s if within else cluster.network_gb_s) * 1e9
    latency_s = (cluster.node_us if within else cluster.network_us) * 1e-6
    return message.calls * hops * latency_s + sent_bytes(message.kind, message.handed, ranks) / bandwidth


def _hidden(plan: Plan, exchange_s: Mapping[str, float], products_s: float) -> dict[str, float]:
    """What of each exchange goes on while the GPU computes.

    The average's lasts until the next step makes keys, so the query's forward pass hides it; that of sharded key
    weights, the forward passes of the parts before. Stages 2 and 3 reduce during the backward pass (`overlap_comm`),
    all but the last bucket; stage 3 gathers weights ahead of their layer.
    """
    micro_batch_s = products_s / plan.accumulation
    hidden = {}
    if "average" in exchange_s and plan.average == "sharded":
        behind_s = products_s if plan.key_parts else micro_batch_s
        hidden["average"] = min(exchange_s["average"], FORWARD_OF_QUERY * behind_s)
    if plan.stage >= 2:
        gradients = exchange_s.get("gradients", 0.0) * (1 - 1 / math.ceil(plan.parameters / BUCKET))
        hidden["gradients"] = min(gradients, BACKWARD * products_s)
    if plan.stage == 3:
        left = FORWARD_OF_QUERY * products_s - (0.0 if plan.key_parts else hidden.get("average", 0.0))
        hidden["weights"] = min(exchange_s.get("weights", 0.0), max(0.0, left))
    return hidden


@dataclass(frozen=True)
class Advice:
    """A plan that does better, and the options that make it of the first."""

    plan: Plan
    options: tuple[str, ...]


def advise(plan: Plan, cluster: Cluster, sentence_flops: float) -> Advice | None:
    """What to set where the efficiency is below `GOAL`: what gains most first, until the goal is reached.

    A larger global batch is another training, so it comes last. None where nothing need be set or nothing helps.
    """

    def efficiency(of: Plan) -> float:
        return estimate(of, cluster, sentence_flops).efficiency

    best = plan
    while efficiency(best) < GOAL:
        better = max(_changes(best), key=efficiency, default=best)
        if efficiency(better) <= efficiency(best) + LEAST_GAIN:
            if best.rank_sentences >= MOST_GROWTH * plan.rank_sentences:
                break
            full = best.rank_sentences // best.accumulation >= FULL_MICRO_BATCH
            accumulation = best.accumulation * (2 if full else 1)
            better = replace(best, rank_sentences=2 * best.rank_sentences, accumulation=accumulation)
        best = better
    options = tuple(_options(plan, best))
    return Advice(best, options) if options else None


def _changes(plan: Plan) -> Iterator[Plan]:
    """Plans of the same training with one setting changed."""
    if plan.stage > 0:
        yield from (replace(plan, stage=stage) for stage in (1, 2, 3) if stage != plan.stage)
    if plan.key_parameters:
        yield replace(plan, queue_dtype="float16")
        yield replace(plan, average="sharded")


def _options(before: Plan, after: Plan) -> Iterator[str]:
    if after.stage != before.stage:
        yield f"--deepspeed zero{after.stage}"
    for name in ("queue_dtype", "average"):
        if getattr(after, name) != getattr(before, name):
            yield f"--{name} {getattr(after, name)}"
    if after.rank_sentences != before.rank_sentences:
        micro_batch = after.rank_sentences // after.accumulation
        yield f"--global_batch_sentences {after.global_batch} --micro_batch_sentences {micro_batch}"
