"""What a start of a run leaves out of training: by its settings, its checkpoint and earlier roll-backs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from spe_dist.config.shared import RunConfig
from spe_dist.distributed.context import RankContext
from spe_dist.training.health.left_out import STATE, LeftOut, listed, read_sentence_ids
from spe_dist.training.resume import ResumePoint
from spe_dist.utils.reading.files import open_file
from spe_dist.utils.run_files import FAILURES_FILE
from spe_dist.utils.wording import how_many


def choose_left_out(
    settings: RunConfig, start: ResumePoint, context: RankContext, ids: range
) -> tuple[ResumePoint, LeftOut]:
    """The start with lines on what it leaves out, and that; a collective.

    The file of `skip_sentences` counts where it is given, else what the checkpoint has. Steps of roll-backs stay left
    out: those of the checkpoint, and those that were made since it was written.

    Args:
        settings: of the run.
        start: where it begins.
        context: of this rank.
        ids: all that sentences may have.

    Raises:
        ConfigError: the file cannot be read, or names sentences that there are not.
    """
    kept = _kept(start.state.get(STATE))
    notes = []
    path = settings.skip_sentences
    if path is None:
        sentences = kept.sentences
        if sentences:
            notes.append(f"{how_many(len(sentences), 'sentence')} left out, as in {start.checkpoint}")
    else:
        sentences = context.run_on_main(lambda: read_sentence_ids(Path(path), ids))
        notes.append(f"{how_many(len(sentences), 'sentence')} of {path} left out")
        if start.checkpoint is not None and set(sentences) != set(kept.sentences):
            more, fewer = len({*sentences} - {*kept.sentences}), len({*kept.sentences} - {*sentences})
            notes.append(f"left out since {start.checkpoint.name}: {more:,} sentences more, {fewer:,} no longer")
    steps = kept.steps | set(context.run_on_main(lambda: _steps_of_rollbacks(Path(settings.output) / FAILURES_FILE)))
    coming = sorted(step for step in steps if step > start.position.step)
    if coming:
        notes.append(f"left out after roll-backs: {listed(coming)}")
    return replace(start, notes=[*start.notes, *notes]), LeftOut(sentences, steps, kept.replaced)


def _kept(state: Any) -> LeftOut:
    """Of a checkpoint's state."""
    if not isinstance(state, Mapping):
        return LeftOut()
    return LeftOut(tuple(state["sentences"]), set(state["steps"]), int(state["replaced"]))


def _steps_of_rollbacks(path: Path) -> list[int]:
    """Steps that earlier starts have left out, by the rows of failures.jsonl."""
    try:
        with open_file(path) as file:
            lines = file.read().splitlines()
    except OSError:
        return []
    steps: list[int] = []
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        left_out = row.get("left_out_steps") if isinstance(row, dict) else None
        if isinstance(left_out, list):
            steps += [step for step in left_out if isinstance(step, int)]
    return steps
