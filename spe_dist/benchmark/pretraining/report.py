"""What was measured, as tables and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from spe_dist.benchmark.pretraining.processes import Measured
from spe_dist.benchmark.pretraining.work import Block, Spent, Spread, Work
from spe_dist.utils.tables import aligned

MIB = 2**20
PRECISE = 10.0  # below it two digits follow the point


def tables(work: Work, measured: Sequence[Measured]) -> list[str]:
    """Lines: what was trained, rates, ratios, and for each of our contenders its phases and collectives."""
    first = measured[0].facts
    sentences = f"of {work.shards}" if work.shards else f"made up, {work.pieces:g} pieces each with [CLS] and [SEP]"
    lines = [
        f"{work.size}, {first.parameters:,} parameters, on {first.device}; {first.batch}",
        f"sentences {sentences}; {first.pieces_a_view:.1f} pieces a view, settings "
        + " ".join(f"{name}={value}" for name, value in work.given.items()),
        "",
        *aligned(_rates(measured), rule=True),
        "",
        *_ratios(measured),
    ]
    for one in measured:
        if not one.entry.plain:
            lines += ["", f"a step of {one.facts.title}", *aligned(_phases(one), rule=True), "", *_collectives(one)]
    return lines


def _rates(measured: Sequence[Measured]) -> list[list[str]]:
    head = ["", "sentences/s", "a CPU s", "tokens/s", "GFLOP/s", "plain product", "share", "by CPU s", "peak GiB"]
    rows = [head]
    for one in measured:
        rows.append(
            [
                f"{one.facts.title}, {one.facts.threads} threads each",
                _figure(one, lambda block: block.per_second),
                _figure(one, lambda block: block.per_cpu_s),
                _figure(one, lambda block: block.tokens / block.spent.seconds),
                _figure(one, lambda block: block.flops / block.spent.seconds / 1e9),
                _figure(one, lambda block: block.product_flops / block.product.seconds / 1e9),
                _share(one, lambda block: block.share),
                _share(one, lambda block: block.cpu_share),
                f"{one.counts.peak_memory_gib:.2f}",
            ]
        )
    return rows


def _figure(one: Measured, of: Callable[[Block], float]) -> str:
    value = Spread.of(map(of, one.blocks)).median
    return f"{value:,.2f}" if value < PRECISE else f"{value:,.1f}"


def _share(one: Measured, of: Callable[[Block], float]) -> str:
    spread = Spread.of(map(of, one.blocks))
    return f"{spread.median:.0%} ({spread.low:.0%} to {spread.high:.0%})"


def ratios(measured: Sequence[Measured]) -> list[tuple[str, Spread, Spread]]:
    """(names, ratio of rates, the same by CPU seconds) of the first contender to the others, block by block."""
    first, *others = measured
    found = []
    for other in others:
        faster, slower = (first, other) if other.entry.plain else (other, first)
        pairs = list(zip(faster.blocks, slower.blocks, strict=True))
        found.append(
            (
                f"{faster.facts.title} / {slower.facts.title}",
                Spread.of(a.per_second / b.per_second for a, b in pairs),
                Spread.of(a.per_cpu_s / b.per_cpu_s for a, b in pairs),
            )
        )
    return found


def _ratios(measured: Sequence[Measured]) -> list[str]:
    rows = [["ratio of rates", "by time", "by CPU seconds"]]
    rows += [[names, _times(wall), _times(cpu)] for names, wall, cpu in ratios(measured)]
    product = f"plain product: {measured[0].facts.product}"
    return [*(aligned(rows, rule=True) if len(rows) > 1 else []), product]


def _times(spread: Spread) -> str:
    return f"{spread.median:.2f} ({spread.low:.2f} to {spread.high:.2f})"


def _phases(one: Measured) -> list[list[str]]:
    steps = sum(block.steps for block in one.blocks)
    whole = Spent()
    for block in one.blocks:
        for spent in block.phases.values():
            whole += spent
    launches = one.counts.launches
    counted = "operations" if one.facts.device == "CPU" else "launches"
    rows = [["phase", "ms", "share", "CPU ms", "share", *([counted] if launches else [])]]
    for name in one.blocks[0].phases:
        spent = Spent()
        for block in one.blocks:
            spent += block.phases[name]
        row = [
            name,
            f"{1000 * spent.seconds / steps:,.1f}",
            f"{spent.seconds / whole.seconds:.1%}",
            f"{1000 * spent.cpu_s / steps:,.1f}",
            f"{spent.cpu_s / whole.cpu_s:.1%}",
        ]
        rows.append([*row, f"{launches.get(name, 0):,}"] if launches else row)
    total = ["all", f"{1000 * whole.seconds / steps:,.1f}", "", f"{1000 * whole.cpu_s / steps:,.1f}", ""]
    rows.append([*total, f"{sum(launches.values()):,}"] if launches else total)
    return rows


def _collectives(one: Measured) -> list[str]:
    if not one.counts.collectives:
        return ["no collectives"]
    rows = [["collective", "calls", "MiB handed to it"]]
    rows += [[kind, str(calls), f"{size / MIB:,.2f}"] for kind, (calls, size) in one.counts.collectives.items()]
    return aligned(rows, rule=True)


def as_json(work: Work, measured: Sequence[Measured], machine: str, command: Sequence[str]) -> dict[str, Any]:
    """Everything: each block of each contender, with the rates and shares that are made of it."""
    contenders = []
    for one in measured:
        derived = ("per_second", "per_cpu_s", "share", "cpu_share")
        blocks = [
            {**dataclasses.asdict(block), **{name: getattr(block, name) for name in derived}} for block in one.blocks
        ]
        contenders.append(
            {
                "ranks": one.entry.ranks,
                "plain": one.entry.plain,
                "sharded": one.entry.sharded,
                "facts": dataclasses.asdict(one.facts),
                "blocks": blocks,
                "counts": dataclasses.asdict(one.counts),
            }
        )
    return {
        "machine": machine,
        "command": ["spe", *command],
        "work": {**dataclasses.asdict(work), "given": dict(work.given)},
        "contenders": contenders,
        "ratios": {
            names: {"by_time": dataclasses.asdict(wall), "by_cpu_seconds": dataclasses.asdict(cpu)}
            for names, wall, cpu in ratios(measured)
        },
    }
