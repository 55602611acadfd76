"""The tables of `spe benchmark scaling`, and the same as JSON. Imports no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spe_dist.benchmark.scaling.model import GOAL, Advice, Cluster, Step, advise, estimate
from spe_dist.benchmark.scaling.traffic import Plan
from spe_dist.utils.tables import aligned

LARGE = ("gradients", "weights", "average", "enqueue", "contrast")
GIB = 2**30


@dataclass(frozen=True)
class Row:
    """One plan with its figures; `memory`: bytes of a rank by what takes them."""

    plan: Plan
    step: Step
    memory: Mapping[str, int]
    advice: Advice | None
    advised: Step | None


def rows(
    plans: Sequence[Plan],
    cluster: Cluster,
    sentence_flops: float,
    memory: Callable[[Plan], Mapping[str, int]],
) -> list[Row]:
    """The figures of all plans."""
    found = []
    for plan in plans:
        advice = advise(plan, cluster, sentence_flops)
        advised = estimate(advice.plan, cluster, sentence_flops) if advice else None
        found.append(Row(plan, estimate(plan, cluster, sentence_flops), memory(plan), advice, advised))
    return found


def tables(found: Sequence[Row], cluster: Cluster) -> list[str]:
    """Time and memory, bytes by purpose, and what to set; then the assumptions."""
    times = [["stage", "GPUs", "sentences", "compute", "wait", "data", "efficiency", "sentences/s", "a rank/s", "GiB"]]
    large = [name for name in LARGE if name != "contrast" or any(name in row.step.sent for row in found)]
    sent = [["stage", "GPUs", *(f"{name}, MB" for name in large), "rest, kB", "collectives, ms alone"]]
    advice = [["stage", "GPUs", "efficiency", "then", "set"]]
    for row in found:
        plan, step = row.plan, row.step
        name = [str(plan.stage), f"{plan.ranks:,}"]
        rate = plan.rank_sentences / step.seconds
        times.append(
            [
                *name,
                f"{plan.global_batch:,}",
                f"{1e3 * step.compute_s:.1f} ms",
                f"{1e3 * step.waiting_s:.1f} ms",
                f"{1e3 * step.data_s:.1f} ms",
                f"{step.efficiency:.0%}",
                f"{rate * plan.ranks:,.0f}",
                f"{rate:,.0f}",
                f"{sum(row.memory.values()) / GIB:.1f}",
            ]
        )
        rest = sum(size for purpose, size in step.sent.items() if purpose not in large)
        exchanged = ", ".join(f"{name} {1e3 * step.exchange_s[name]:.1f}" for name in large if name in step.exchange_s)
        sent.append([*name, *(f"{step.sent.get(p, 0.0) / 1e6:,.1f}" for p in large), f"{rest / 1e3:.2f}", exchanged])
        if row.advice is not None and row.advised is not None:
            short = row.advised.efficiency < GOAL
            options = " ".join(row.advice.options) + ("; or fewer GPUs" if short else "")
            advice.append([*name, f"{step.efficiency:.0%}", f"{row.advised.efficiency:.0%}", options])
    lines = ["a step, by stage of ZeRO", *aligned(times, ">", rule=True)]
    lines += ["", "what a rank sends in a step", *aligned(sent, f"{'>' * (3 + len(large))}<", rule=True)]
    if len(advice) > 1:
        lines += ["", "what to set", *aligned(advice, ">>>><", rule=True)]
    return [*lines, "", "assumed: " + assumptions(cluster)]


def assumptions(cluster: Cluster) -> str:
    """The cluster in one line, by the names of its options."""
    return ", ".join(f"{name} {value:g}" for name, value in dataclasses.asdict(cluster).items())


def as_json(found: Sequence[Row], cluster: Cluster, network: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the tables show and what they are made of."""
    listed = [
        {
            **dataclasses.asdict(row),
            "seconds": row.step.seconds,
            "efficiency": row.step.efficiency,
            "advised_efficiency": row.advised.efficiency if row.advised else None,
        }
        for row in found
    ]
    return {"cluster": dataclasses.asdict(cluster), "network": dict(network), "rows": listed}
