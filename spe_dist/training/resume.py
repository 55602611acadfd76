"""Where a run begins: at step 0 in a free folder, or at a checkpoint that a run like it has written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spe_dist.config.loading import describe_differences, differences, load_yaml, resolve
from spe_dist.config.shared import RunConfig
from spe_dist.distributed.checkpoint import Checkpoints, list_checkpoints, read_state, step_of
from spe_dist.distributed.context import RankContext
from spe_dist.distributed.deepspeed_config import Precision
from spe_dist.distributed.stage import choose_stage
from spe_dist.errors import CheckpointError
from spe_dist.training.journal import Position
from spe_dist.utils.run_files import CONFIG_FILE
from spe_dist.utils.wording import how_many


@dataclass(frozen=True)
class ResumePoint:
    """A checkpoint to continue from and its state; at step 0 there is none."""

    checkpoint: Path | None
    state: Mapping[str, Any]
    notes: list[str]  # to be printed
    automatic: bool = True  # chosen by the program, not named by the user

    @property
    def position(self) -> Position:
        return Position.of(self.state) if self.checkpoint else Position()

    def is_older_one_of(self, folder: Path) -> bool:
        """Whether it was chosen by name from a folder of checkpoints that has newer ones."""
        if self.automatic or self.checkpoint is None or self.checkpoint.resolve().parent != folder.resolve():
            return False
        return any(step_of(path) > self.state["step"] for path in list_checkpoints(folder))

    def with_changes(self, changed: Mapping[str, tuple[Any, Any]]) -> ResumePoint:
        """The same with a note on settings that changed: (the checkpoint's, this run's) by name."""
        if not changed or self.checkpoint is None:
            return self
        note = f"settings changed since {self.checkpoint.name}: {describe_differences(changed)}"
        return replace(self, notes=[*self.notes, note])


def choose_start(settings: RunConfig, context: RankContext, checkpoints: Checkpoints) -> ResumePoint:
    """What `resume` asks for. A collective.

    Raises:
        CheckpointError: there is no whole checkpoint, or the run would write over another one.
    """
    if settings.resume == "never":
        _refuse_output_of_another_run(settings.output, context)
        return ResumePoint(None, {}, [])
    notes: list[str] = []
    if settings.resume == "auto":
        path, notes = checkpoints.newest_valid()
        if path is None and notes:
            raise CheckpointError(
                f"no checkpoint in {checkpoints.folder} is whole ({'; '.join(notes)}); move the folder away to start "
                "from step 0"
            )
        if path is None:
            return ResumePoint(None, {}, [f"nothing to resume in {checkpoints.folder}: starting at step 0"])
    else:
        path = Path(settings.resume)
        problem = checkpoints.problem_of(path)
        if problem is not None:
            raise CheckpointError(f"resume={settings.resume}: {problem}; give OUTPUT/checkpoints/step_N, or 'auto'")
        if path.resolve().parent != checkpoints.folder.resolve():
            _refuse_output_of_another_run(settings.output, context)
    state = context.run_on_main(lambda: read_state(path))
    start = ResumePoint(
        path, state, [*notes, f"resuming from {path}, step {state['step']:,}"], settings.resume == "auto"
    )
    if context.run_on_main(lambda: start.is_older_one_of(checkpoints.folder)):
        start.notes.append("checkpoints of later steps, which are trained again, go with the first that is saved")
    return start


def _refuse_output_of_another_run(output: str, context: RankContext) -> None:
    if context.run_on_main(lambda: (Path(output) / CONFIG_FILE).exists()):
        raise CheckpointError(
            f"output={output} holds another run; continue it with --resume auto, or choose another --output"
        )


def settle_stage(
    settings: RunConfig, ds_config: dict[str, Any], precision: Precision, ranks: int, start: ResumePoint
) -> tuple[dict[str, Any], ResumePoint]:
    """The DeepSpeed config with the stage of the run, and the start with lines on it where it needs a reason.

    A checkpoint fits any number of ranks, stage and precision; one line says which of them changed.
    """
    ds_config, reason = choose_stage(ds_config, precision, ranks, settings.keep_zero_stage)
    now = engine_state(precision, ranks, ds_config["zero_optimization"]["stage"])
    changed = _describe_change(start.state, now) if start.checkpoint else None
    return ds_config, replace(start, notes=[*start.notes, *filter(None, [reason, changed])])


def engine_state(precision: Precision, ranks: int, zero_stage: int) -> dict[str, Any]:
    """What a checkpoint tells of the engine that wrote it; one that resumes may have others."""
    return {"ranks": ranks, "precision": precision, "zero_stage": zero_stage}


def _describe_change(saved: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """What differs between the engines, in words; None where they are alike."""
    if all(saved.get(name) == value for name, value in now.items()):
        return None
    with_precision = saved.get("precision") != now["precision"]

    def words(engine: Mapping[str, Any]) -> str:
        precision = f" in {engine.get('precision')}" if with_precision else ""
        return f"{how_many(int(engine.get('ranks', 0)), 'rank')} at stage {engine.get('zero_stage')}{precision}"

    return f"resuming on {words(now)} from a checkpoint of {words(saved)}"


def check_same_run(
    saved: Mapping[str, Any], asked: Mapping[str, Any], path: Path, remedies: Mapping[str, str] | None = None
) -> None:
    """Compare what a checkpoint or a finished run, `saved`, and this run, `asked`, must have in common.

    `remedies`: what to resume with, by name, where a value says nothing to a reader.

    Raises:
        CheckpointError: the first value that differs, and the remedy.
    """
    for name, mine in asked.items():
        value = saved.get(name)
        if value == mine:
            continue
        found, remedy = f"{name}={value}, this run has {mine}", f"{name}={value}"
        if remedies and name in remedies:
            found, remedy = f"other {name}", remedies[name]
        raise CheckpointError(
            f"{path} was written with {found}; resume with {remedy}, or start a new run in another --output"
        )


def changed_settings(folder: Path, config: Any) -> dict[str, tuple[Any, Any]]:
    """Settings of `config` that differ from those saved in `folder`: (saved, this run's); none where nothing is saved.

    Raises:
        ConfigError: the saved settings cannot be read.
    """
    if not (folder / CONFIG_FILE).exists():
        return {}
    return differences(resolve([load_yaml(folder / CONFIG_FILE, type(config))], type(config)), config)
