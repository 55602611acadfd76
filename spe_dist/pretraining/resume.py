"""Whether a checkpoint is one that a pre-training run may continue from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spe_dist.config.pretraining import Config
from spe_dist.config.shared import ENCODER_SIZES
from spe_dist.data.batches.order import Order
from spe_dist.distributed.checkpoint import Checkpoints
from spe_dist.distributed.context import RankContext
from spe_dist.distributed.engine import TrainingEngine
from spe_dist.distributed.fragments.tensors import CheckpointTensors
from spe_dist.errors import CheckpointError
from spe_dist.moco import MomentumContrast
from spe_dist.training import resume
from spe_dist.training.resume import ResumePoint, changed_settings, check_same_run


def choose_start(config: Config, context: RankContext, checkpoints: Checkpoints, order: Order) -> ResumePoint:
    """A new run in a free folder, or the checkpoint to continue from. A collective.

    Raises:
        CheckpointError: none is whole, or it belongs to another run.
    """
    start = resume.choose_start(config.train, context, checkpoints)
    path, state = start.checkpoint, start.state
    if path is None:
        return start
    if "data" not in state:
        raise CheckpointError(f"{path} is not a pre-training checkpoint; give one with --resume, or start a new run")
    steps = order.check(state["data"])
    if steps != state["step"]:
        raise CheckpointError(f"{path} is inconsistent: step {state['step']}, but data of {steps} steps; take another")
    changed = context.run_on_main(lambda: check_network(changed_settings(path, config), config, path))
    return start.with_changes(changed)


def check_network(changed: Mapping[str, tuple[Any, Any]], config: Config, path: Path) -> dict[str, tuple[Any, Any]]:
    """The changed settings, (saved, this run's), that matter: an encoder that is loaded has sizes of its own.

    Raises:
        CheckpointError: the network or the queued keys of the checkpoint `path` were built with another setting.
    """
    encoder_loaded = all(changed.get("encoder", (config.model.encoder,)))
    used = {name: values for name, values in changed.items() if not encoder_loaded or name not in ENCODER_SIZES}
    fixed = {*vars(config.model), "tbo", "spo", "cspo", "mlm", "normalize"} - {"encoder", "tokenizer", "dropout"}
    saved, asked = ({name: values[i] for name, values in used.items() if name in fixed} for i in (0, 1))
    check_same_run(saved, asked, path)
    return used


def begin(start: ResumePoint, engine: TrainingEngine, moco: MomentumContrast | None) -> None:
    """Bring engine and MoCo to where the run starts. A collective."""
    if start.checkpoint is not None:
        restore(start.checkpoint, engine, moco)
    elif moco is not None:
        moco.start()


def restore(path: Path, engine: TrainingEngine, moco: MomentumContrast | None) -> None:
    """Bring engine and MoCo to the state of a checkpoint. A collective."""
    source = CheckpointTensors(path, engine.context.control)
    engine.load(source)
    if moco is not None:
        moco.load(source)
