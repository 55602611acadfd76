"""What a fine-tuning run continues from: position, engine and best model of a checkpoint.

Checkpoints are removed when the run is finished.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from spe_dist.config.finetuning import FinetuneConfig
from spe_dist.config.loading import to_yaml
from spe_dist.distributed.checkpoint import Checkpoints
from spe_dist.distributed.context import RankContext
from spe_dist.distributed.engine import TrainingEngine
from spe_dist.distributed.fragments.tensors import Captured, CheckpointTensors
from spe_dist.errors import CheckpointError
from spe_dist.extraction.joint.checkpoint import Description
from spe_dist.finetuning.data import Corpora, TrainingData, sentences_sha256
from spe_dist.finetuning.loop import Best
from spe_dist.training import resume
from spe_dist.training.journal import WriteCheckpoint
from spe_dist.training.resume import ResumePoint, changed_settings, check_same_run
from spe_dist.utils.files import WRITING_SUFFIX, atomic_folder
from spe_dist.utils.run_files import BEST_FOLDER, CONFIG_FILE

REMEDIES = {
    "training sentences": "the same --train file and train_share",
    "dev sentences": "the same --dev file, by which its best epoch was chosen",
    "total_steps": "epochs, epoch_scaling and train_share as they were",
}


def run_state(config: FinetuneConfig, corpora: Corpora, data: TrainingData) -> dict[str, Any]:
    """What a checkpoint and the run that resumes it must have in common, by the names that a user knows."""
    model = {name: value for name, value in vars(config.model).items() if name != "dropout"}
    return {
        "seed": config.train.seed,
        **{name: list(value) if isinstance(value, tuple) else value for name, value in model.items()},
        "max_pieces": config.data.max_pieces,
        "context_pieces": config.data.context_pieces,
        "batch_sentences": config.train.batch_sentences,
        "training sentences": sentences_sha256(corpora.sentences),
        "dev sentences": sentences_sha256(corpora.dev.sentences) if corpora.dev is not None else None,
        "total_steps": data.total_steps,
    }


def choose_start(
    config: FinetuneConfig, context: RankContext, checkpoints: Checkpoints, asked: Mapping[str, Any]
) -> tuple[ResumePoint, Best]:
    """A new run in a free folder, or the checkpoint to continue from. A collective.

    Raises:
        CheckpointError: none is whole, or it belongs to another run.
    """
    start = resume.choose_start(config.train, context, checkpoints)
    path = start.checkpoint
    if path is None:
        return start, Best()
    if "best" not in start.state:
        raise CheckpointError(f"{path} is not a fine-tuning checkpoint; to begin from it, give it as --start")
    check_same_run(start.state, asked, path, REMEDIES)
    changed = context.run_on_main(lambda: changed_settings(path, config))
    return start.with_changes(changed), Best(**start.state["best"])


def checkpoint_capture(
    config: FinetuneConfig, context: RankContext, engine: TrainingEngine, model_folder: Path, description: Description
) -> Callable[[bool], WriteCheckpoint]:
    """What takes hold of the state for a checkpoint, and gives the function that fills its folder."""

    def capture(copy: bool) -> WriteCheckpoint:
        captured = Captured([engine], copy)
        best = _hold(model_folder) if context.is_main and model_folder.is_dir() else None

        def write(folder: Path, group: Any) -> None:
            captured.write(folder, group)
            if context.is_main:
                (folder / CONFIG_FILE).write_text(to_yaml(config), encoding="utf-8")
                description.write(folder)
            if best is not None:
                best.rename(folder / BEST_FOLDER)

        return write

    return capture


def restore(start: ResumePoint, engine: TrainingEngine) -> None:
    """Bring the engine to the state of a checkpoint, where there is one. A collective."""
    if start.checkpoint is not None:
        engine.load(CheckpointTensors(start.checkpoint, engine.context.control))


def restore_model(checkpoint: Path, model_folder: Path) -> None:
    """Bring OUTPUT/model to what it was when the checkpoint was written. For rank 0."""
    if (checkpoint / BEST_FOLDER).is_dir():
        with atomic_folder(model_folder) as folder:
            shutil.copytree(checkpoint / BEST_FOLDER, folder, copy_function=_link, dirs_exist_ok=True)
    elif model_folder.is_dir():
        shutil.rmtree(model_folder)


def remove_checkpoints(checkpoints: Checkpoints) -> None:
    """What only a resume needs goes when the run is finished. For rank 0."""
    shutil.rmtree(checkpoints.folder, ignore_errors=True)


def _hold(model_folder: Path) -> Path:
    """The model as it is now beside its folder, which a later epoch may replace."""
    held = model_folder.with_name(f".{model_folder.name}.{secrets.token_hex(4)}{WRITING_SUFFIX}")
    shutil.copytree(model_folder, held, copy_function=_link)
    return held


def _link(source: str, target: str) -> None:
    """The files of a model are replaced, never written to again, so two names may share one."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
