"""The stage `throughput`: sentences a second of pre-training BERT-base, by precision, stage and compilation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from spe_dist.benchmark.gpu_check.commands import Task, give_failure, reason, run_spe
from spe_dist.benchmark.gpu_check.record import give

BATCH, SMALL_BATCH = 256, 8  # sentences
KEYS, SMALL_KEYS = 65_536, 64
SMALL_VOCABULARY = 200  # pieces
LEAST_S = 12.0  # with less time nothing is begun: loading alone takes about that
LONGEST_S = 75.0  # of one way: one that hangs leaves the others their time


@dataclass(frozen=True)
class Variant:
    """One way to train. `stage` None: what `spe pretrain` takes by itself; `plain`: in its plain form."""

    precision: str
    stage: int | None
    compile: bool = False
    plain: bool = False

    @property
    def name(self) -> str:
        words = [self.precision, "by itself" if self.stage is None else f"at stage {self.stage}"]
        return ", ".join([" ".join(words), *["compiled"] * self.compile, *["beside its plain form"] * self.plain])

    @property
    def options(self) -> list[str]:
        given = ["--precision", self.precision, "--plain" if self.plain else "--no-plain"]
        if self.stage is not None:
            given += ["--stage", str(self.stage)]
        return [*given, "--set", f"compile={str(self.compile).lower()}"]


# The most wanted first: the default path, then what may replace it.
ON_GPU = (
    Variant("float16", 1),
    Variant("float16", 1, compile=True),
    Variant("bfloat16", 1),
    Variant("mixed", None),
    Variant("float16", 2),
    Variant("float16", 1, plain=True),
    Variant("bfloat16", 1, compile=True),
    Variant("float16", 3),
    Variant("mixed", None, compile=True),
    Variant("float32", None),
)
ON_CPU = (Variant("float32", None, plain=True), Variant("float32", 1))


def check_throughput(task: Task) -> bool:
    """A result for each variant that there is time for."""
    size = "2x128" if task.small else "base"
    common = ["--size", size, "--batch", str(SMALL_BATCH if task.small else BATCH)]
    common += ["--keys", str(SMALL_KEYS if task.small else KEYS)]
    common += ["--vocabulary", str(SMALL_VOCABULARY)] if task.small else []
    common += ["--rounds", "2", "--seconds", "0.1" if task.small else "1.5"]
    variants = ON_CPU if not task.on_gpu else ON_GPU[:2] if task.small else ON_GPU
    fine = True
    for variant in variants:
        if task.left_s() < LEAST_S:
            give(variant.name, left_out="no time is left")
            continue
        file = task.work / "figures.json"
        command = ["benchmark", "pretrain", *common, *variant.options, "--json", file]
        status, text = run_spe(task, *command, limit_s=min(LONGEST_S, task.left_s()))
        if status:
            fine = give_failure(variant.name, reason(status, text))
            continue
        for name, figures in figures_of(variant.name, json.loads(file.read_text(encoding="utf-8"))).items():
            give(name, **figures)
    return fine


def figures_of(name: str, found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What a check keeps of `spe benchmark pretrain --json`: by contender, medians of its blocks."""
    results = {}
    for contender in found["contenders"]:
        blocks, counts = contender["blocks"], contender["counts"]
        steps = sum(block["steps"] for block in blocks)
        figures: dict[str, Any] = {
            "sentences_per_s": median(block["per_second"] for block in blocks),
            "step_ms": 1000 * sum(block["spent"]["seconds"] for block in blocks) / steps,
            "share_of_plain_product": median(block["share"] for block in blocks),
            "peak_memory_gib": counts["peak_memory_gib"],
        }
        if contender["plain"]:
            results[f"{name}: plain form"] = figures
            continue
        phases = {
            phase: float(f"{1000 * sum(block['phases'][phase]['seconds'] for block in blocks) / steps:.3g}")
            for phase in blocks[0]["phases"]
        }
        results[name] = {**figures, "phases_ms": phases, "launches": counts["launches"]}
    for ratio in found["ratios"].values():
        results[f"{name}: ratio"] = {"times_as_fast": ratio["by_time"]["median"]}
    return results
