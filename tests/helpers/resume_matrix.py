"""Pre-training of a small model saved in one engine and gone on with in another: other ranks, stages, precisions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from float16_cpu import allow_float16
from kept_state import load_states, save_states
from small_steps import build_step, micro_batches, small_config, start

from spe_dist.distributed.context import RankContext
from spe_dist.distributed.deepspeed_config import Precision
from spe_dist.pretraining.step import TrainingStep

SAVED_STEP, STEPS = 3, 13
RATE = 3e-3
LOSS_SCALE = {"loss_scale": 0, "initial_scale_power": 8, "hysteresis": 2, "loss_scale_window": 3, "min_loss_scale": 1}


@dataclass(frozen=True)
class EngineKind:
    """How an engine of some ranks trains."""

    ranks: int
    stage: int
    offload: bool = False
    precision: Precision = "float32"
    average: str = "sharded"
    sub_group: int | None = None  # parameters that stage 3 updates at once

    def __str__(self) -> str:
        stage = f"{self.stage}{'o' if self.offload else ''}{self.sub_group or ''}"
        return f"{self.ranks}x{stage}-{self.precision}-{self.average}"


def build(kind: EngineKind, context: RankContext, **given: Any) -> tuple[Any, TrainingStep, int]:
    """Config, training step and accumulation."""
    if kind.precision == "float16":
        allow_float16()
    config = small_config(average=kind.average, queue_keys=30, **given)
    zero: dict[str, Any] = {"stage3_param_persistence_threshold": 40} if kind.stage == 3 else {}
    if kind.sub_group:
        zero["sub_group_size"] = kind.sub_group
    if kind.offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": False}
    accumulation = 4 // kind.ranks
    ds = {"fp16": LOSS_SCALE} if kind.precision == "float16" else {}
    step = build_step(config, context, kind.stage, accumulation, kind.precision, zero, **ds)
    return config, step, accumulation


def train(kind: EngineKind, config: Any, step: TrainingStep, accumulation: int, numbers: range) -> list[Any]:
    """For each step its loss over all ranks, whether it was applied, the queue's ids and the loss scale."""
    rows = []
    for number in numbers:
        outcome = step(number, RATE, micro_batches(config, step.context, number, accumulation))
        loss = sum(
            float(step.context.all_reduce_sum(outcome.sums[f"{name}/loss"].double())) / count
            for name, count in outcome.counts.items()
        )
        ids = step.moco.pair_queue.ids_K.tolist(), step.moco.context_queue.ids_K.tolist()
        rows.append((loss, outcome.applied, ids, step.engine.loss_scale()))
    return rows


def save_all(kinds: list[EngineKind], folder: Path) -> dict[EngineKind, list[Any]]:
    """In a rank: for each kind train, save in the middle and train to the end; the rows after the saved step."""
    context, found = start(), {}
    for kind in kinds:
        config, step, accumulation = build(kind, context)
        train(kind, config, step, accumulation, range(SAVED_STEP))
        save_states(folder / str(kind), context, step.engine, step.moco)
        found[kind] = train(kind, config, step, accumulation, range(SAVED_STEP, STEPS))
    return found


def resume_all(pairs: list[tuple[EngineKind, EngineKind]], folder: Path) -> list[list[Any]]:
    """In a rank: for each pair (saved, resumed) the rows of the resumed engine from the saved step on."""
    context, found = start(), []
    for saved, kind in pairs:
        torch.manual_seed(1)
        config, step, accumulation = build(kind, context, seed=5)  # other start weights, which loading replaces
        load_states(folder / str(saved), context, step.engine, step.moco)
        step.moco.check_equal()
        found.append(train(kind, config, step, accumulation, range(SAVED_STEP, STEPS)))
    return found
