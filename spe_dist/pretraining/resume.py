"""Where a pre-training run begins: anew, or at a checkpoint that was written by a run like it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spe_dist.config.loading import describe_differences, differences, load_yaml, resolve
from spe_dist.config.pretraining import Config
from spe_dist.config.shared import ENCODER_SIZES, RunConfig
from spe_dist.data.batches.order import Order
from spe_dist.distributed.checkpoint import Checkpoints, read_state
from spe_dist.distributed.context import RankContext
from spe_dist.distributed.engine import TrainingEngine
from spe_dist.errors import CheckpointError
from spe_dist.moco import MomentumContrast
from spe_dist.training.journal import Position

CONFIG_FILE = "config.yaml"
MOCO_FILE = "moco.pt"
OBJECTIVES = ("tbo", "spo", "cspo")


@dataclass(frozen=True)
class Start:
    """Where the run begins."""

    position: Position
    checkpoint: Path | None
    notes: list[str]


def choose_start(config: Config, context: RankContext, checkpoints: Checkpoints, order: Order) -> Start:
    """A new run in an empty folder, or the checkpoint to continue from. A collective; raises CheckpointError."""
    path, notes = choose_checkpoint(config.train, context, checkpoints)
    if path is None:
        return Start(Position(), None, notes)
    state = context.run_on_main(lambda: read_state(path))
    _check_same_run(state, context, order, path)
    changed = context.run_on_main(lambda: compare_settings(resolve([load_yaml(path / CONFIG_FILE)]), config, path))
    return Start(Position.of(state), path, [*notes, *changed])


def choose_checkpoint(
    settings: RunConfig, context: RankContext, checkpoints: Checkpoints
) -> tuple[Path | None, list[str]]:
    """The whole checkpoint that `resume` asks for, None to start anew, and lines to print.

    A collective. Raises CheckpointError where there is none, and where the run would write over another.
    """
    if settings.resume == "never":
        _refuse_output_of_another_run(settings.output, context)
        return None, []
    if settings.resume == "auto":
        path, damaged = checkpoints.newest_valid()
        if path is not None:
            return path, damaged
        if damaged:
            raise CheckpointError(
                f"no checkpoint in {checkpoints.folder} is whole ({'; '.join(damaged)}); move the folder away to start "
                "anew"
            )
        return None, [f"nothing to resume in {checkpoints.folder}: starting at step 0"]
    path = Path(settings.resume)
    problem = checkpoints.problem_of(path)
    if problem is not None:
        raise CheckpointError(f"resume={settings.resume}: {problem}; give OUTPUT/checkpoints/step_N, or 'auto'")
    if path.resolve().parent != checkpoints.folder.resolve():
        _refuse_output_of_another_run(settings.output, context)
    return path, []


def _refuse_output_of_another_run(output: str, context: RankContext) -> None:
    if context.run_on_main(lambda: (Path(output) / CONFIG_FILE).exists()):
        raise CheckpointError(
            f"output={output} holds another run; continue it with --resume auto, or choose another --output"
        )


def _check_same_run(state: dict[str, Any], context: RankContext, order: Order, path: Path) -> None:
    if "data" not in state:
        raise CheckpointError(f"{path} is no checkpoint of a pre-training; give one with --resume, or start anew")
    steps = order.check(state["data"])
    if state["ranks"] != context.ranks:
        raise CheckpointError(
            f"{path} was written by {state['ranks']} ranks, this run has {context.ranks}; resume with "
            f"{state['ranks']} ranks"
        )
    if steps != state["step"]:
        raise CheckpointError(f"{path} is inconsistent: step {state['step']}, but data of {steps} steps; take another")


def compare_settings(saved: Config, config: Config, path: Path) -> list[str]:
    """A line on what this run sets otherwise than the one that wrote the checkpoint; none where nothing differs.

    Raises CheckpointError naming a setting that its network or its queued keys were built by.
    """
    fixed = {*vars(config.model), *OBJECTIVES, "normalize"} - {"encoder", "tokenizer", "dropout"}
    unused = ENCODER_SIZES if saved.model.encoder and config.model.encoder else ()  # an encoder has its own
    changed = {}
    for name, (value, mine) in differences(saved, config).items():
        if name in unused:
            continue
        if name in fixed:
            raise CheckpointError(
                f"{path} was written with {name}={value}, this run has {mine}; resume with the checkpoint's value, or "
                "start a new run"
            )
        changed[name] = (value, mine)
    return [f"settings changed since {path.name}: {describe_differences(changed)}"] if changed else []


def run_state(context: RankContext, engine: TrainingEngine, total_steps: int) -> dict[str, Any]:
    """What a checkpoint says of the run that wrote it, beside its position."""
    return {
        "ranks": context.ranks,
        "zero_stage": engine.zero_stage,
        "precision": engine.precision,
        "total_steps": total_steps,
    }


def check_engine_state(state: dict[str, Any], engine: TrainingEngine, path: Path) -> None:
    """The checkpoint's ZeRO stage and precision are this run's. Raises CheckpointError naming both."""
    for name, mine in (("zero_stage", engine.zero_stage), ("precision", engine.precision)):
        if state[name] != mine:
            raise CheckpointError(
                f"{path} was written with {name}={state[name]}, this run has {mine}; use {state[name]}"
            )


def restore(path: Path, engine: TrainingEngine, moco: MomentumContrast | None, context: RankContext) -> None:
    """Bring engine and MoCo to the state of a checkpoint. A collective."""
    check_engine_state(context.run_on_main(lambda: read_state(path)), engine, path)
    engine.load(path)
    if moco is not None:
        moco.load_state_dict(torch.load(path / MOCO_FILE, map_location="cpu", weights_only=True))
