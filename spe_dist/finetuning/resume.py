"""Where a fine-tuning run begins: anew, or at a checkpoint that holds its position, its engine and its best model.

    OUTPUT/checkpoints/step_00000058/
        state.json      position, best epoch, what the run was started with, checksums
        config.yaml     the settings
        engine/         DeepSpeed's files, one set a rank
        best/           the best model so far, as OUTPUT/model (hard links where the file system has them)

They are removed when the run is finished.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spe_dist.config.finetuning import FinetuneConfig
from spe_dist.config.loading import describe_differences, differences, load_yaml, resolve, to_yaml
from spe_dist.distributed.checkpoint import Checkpoints, read_state
from spe_dist.distributed.context import RankContext
from spe_dist.distributed.deepspeed_config import Precision
from spe_dist.distributed.engine import TrainingEngine
from spe_dist.errors import CheckpointError
from spe_dist.finetuning.data import Corpora, TrainingData, fingerprint
from spe_dist.finetuning.loop import Best
from spe_dist.pretraining.resume import CONFIG_FILE, choose_checkpoint
from spe_dist.training.journal import Position
from spe_dist.utils.files import atomic_folder

BEST_FOLDER = "best"
SENTENCES = {
    "training sentences": "the same --train file and train_share",
    "dev sentences": "the same --dev file, by which its best epoch was chosen",
}


@dataclass(frozen=True)
class Resumed:
    """Where the run begins."""

    position: Position
    best: Best
    checkpoint: Path | None
    notes: list[str]


def run_state(
    config: FinetuneConfig,
    corpora: Corpora,
    data: TrainingData,
    ds_config: Mapping[str, Any],
    precision: Precision,
    ranks: int,
) -> dict[str, Any]:
    """What a checkpoint and the run that resumes it must have in common, by the names that a user knows."""
    model = {name: value for name, value in vars(config.model).items() if name != "dropout"}
    return {
        "ranks": ranks,
        "precision": precision,  # before the stage that follows from it
        "zero_stage": ds_config["zero_optimization"]["stage"],
        "seed": config.train.seed,
        **{name: list(value) if isinstance(value, tuple) else value for name, value in model.items()},
        "max_pieces": config.data.max_pieces,
        "context_pieces": config.data.context_pieces,
        "batch_sentences": config.train.batch_sentences,
        "training sentences": fingerprint(corpora.sentences),
        "dev sentences": fingerprint(corpora.dev.sentences) if corpora.dev is not None else None,
        "total_steps": data.total_steps,
    }


def whatever_the_machine(state: Mapping[str, Any]) -> dict[str, Any]:
    """Of `run_state`, what makes another result; the rest only matters for a checkpoint."""
    return {name: value for name, value in state.items() if name not in ("ranks", "zero_stage", "precision")}


def choose_start(
    config: FinetuneConfig, context: RankContext, checkpoints: Checkpoints, state: Mapping[str, Any]
) -> Resumed:
    """A new run in an empty folder, or the checkpoint to continue from. A collective; raises CheckpointError."""
    path, notes = choose_checkpoint(config.train, context, checkpoints)
    if path is None:
        return Resumed(Position(), Best(), None, notes)
    saved = context.run_on_main(lambda: read_state(path))
    if "best" not in saved:
        raise CheckpointError(f"{path} is no checkpoint of a fine-tuning; to begin from it, give it as --start")
    check_same_run(saved, state, path)
    notes = [*notes, f"resuming {path.name} of {config.train.output}"]
    changed = context.run_on_main(lambda: changed_settings(path, config))
    if changed:
        notes.append(f"settings changed since {path.name}: {changed}")
    return Resumed(Position.of(saved), Best(**saved["best"]), path, notes)


def changed_settings(folder: Path, config: FinetuneConfig) -> str:
    """What `config` sets otherwise than the run whose settings lie in `folder`, in words; empty where nothing."""
    if not (folder / CONFIG_FILE).exists():
        return ""
    saved = resolve([load_yaml(folder / CONFIG_FILE, FinetuneConfig)], FinetuneConfig)
    return describe_differences(differences(saved, config))


def check_same_run(saved: Mapping[str, Any], state: Mapping[str, Any], path: Path) -> None:
    """CheckpointError where what `path` holds was made by another run than that of `state`, by what `saved` says."""
    for name, mine in state.items():
        if saved.get(name) == mine:
            continue
        if name in SENTENCES:
            raise CheckpointError(
                f"{path} was written with other {name}; resume with {SENTENCES[name]}, or start anew in another "
                "--output"
            )
        remedy = "epochs, epoch_scaling and train_share as they were" if name == "total_steps" else f"{saved.get(name)}"
        raise CheckpointError(
            f"{path} was written with {name}={saved.get(name)}, this run has {mine}; resume with {remedy}, or start "
            "anew in another --output"
        )


def checkpoint_writer(
    config: FinetuneConfig, context: RankContext, engine: TrainingEngine, model_folder: Path
) -> Callable[[Path], None]:
    """The function that fills a checkpoint folder; all ranks call it together."""

    def write(folder: Path) -> None:
        engine.save(folder)
        if context.is_main:
            (folder / CONFIG_FILE).write_text(to_yaml(config), encoding="utf-8")
            if model_folder.is_dir():
                shutil.copytree(model_folder, folder / BEST_FOLDER, copy_function=_link)

    return write


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


def _link(source: str, target: str) -> None:
    """The files of a model are replaced, never written to again, so two names may share one."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
