"""What is kept of a run while it goes: its position, the rows of its steps, the line that shows it, checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from spe_dist.config.shared import RunConfig
from spe_dist.distributed.checkpoint import Checkpoints
from spe_dist.distributed.engine import TrainingEngine
from spe_dist.errors import TrainingFailure
from spe_dist.training.agreement import Agreement
from spe_dist.training.metrics import MetricLog
from spe_dist.training.progress import Pace, ProgressLine
from spe_dist.training.terms import StepOutcome
from spe_dist.utils.memory import peak_memory_gib


@dataclass(frozen=True)
class Position:
    """How far a run is. A step is an attempted global batch; a float16 overflow skips its update."""

    step: int = 0
    applied_steps: int = 0
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    trained_s: float = 0.0

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Position:
        """That of a checkpoint, from its state."""
        return cls(**{field.name: state[field.name] for field in fields(cls)})

    def after(self, applied: bool, seconds: float) -> Position:
        return Position(
            self.step + 1,
            self.applied_steps + applied,
            self.skipped_steps + (not applied),
            0 if applied else self.skipped_in_a_row + 1,
            self.trained_s + seconds,
        )


@dataclass(frozen=True)
class Saving:
    """How a checkpoint comes about."""

    checkpoints: Checkpoints
    write: Callable[[Path], None]  # fills its folder; all ranks call it together
    run_state: Mapping[str, Any]  # what it and a run that resumes it have in common


class Journal:
    """Counts steps, writes and shows them, saves. All ranks keep one alike: its methods are collectives.

    It ends a run that cannot succeed (a loss that is no number, too many skipped steps) before that is saved.
    """

    def __init__(
        self,
        *,
        settings: RunConfig,
        engine: TrainingEngine,
        position: Position,
        log: MetricLog,
        progress: ProgressLine,
        saving: Saving,
        agreement: Agreement,
        rates: str = "learning_rate",
    ) -> None:
        """`position`: where the run begins, at a checkpoint or at step 0. `rates`: the settings that tame a run."""
        self.settings = settings
        self.engine = engine
        self.position = position
        self.log = log
        self.progress = progress
        self.saving = saving
        self.agreement = agreement
        self.rates = rates
        self.saved_step = position.step or None  # None: nothing is saved yet
        self._pace = Pace()

    def add(self, outcome: StepOutcome, step_s: float, row: Mapping[str, Any], local: Mapping[str, float]) -> None:
        """Count a step that has ended, and write the rows that wait where that is due.

        `row`: its figures, `sentences` among them; `local`: this rank's own numbers, to be added over the ranks.
        """
        self.position = self.position.after(outcome.applied, step_s)
        self._pace.step_ended(step_s)
        shared = {
            "kind": "train",
            "step": self.position.step,
            "grad_norm": self.engine.grad_norm(),
            "loss_scale": self.engine.loss_scale(),
            "applied": int(outcome.applied),
            "skipped_steps": self.position.skipped_steps,
            "step_s": step_s,
            "sentences_per_s": row["sentences"] / step_s,
        }
        memory = {"peak_memory_gib": peak_memory_gib(self.log.context.device)}
        self.log.add({**shared, **row}, outcome.sums, {**local, **memory})
        hopeless = self.position.skipped_in_a_row >= self.settings.max_skipped_steps
        if hopeless or self.position.step % self.settings.log_every_steps == 0:
            self.flush()
        if hopeless:
            raise TrainingFailure(self._describe_skips())

    def flush(self) -> None:
        """Write the waiting rows and show the last. Raises TrainingFailure where an applied loss is no number."""
        self.saving.checkpoints.check_owner()  # rows beside those of a later start would be none of this run's
        rows = self.log.flush()
        if not rows:
            return
        for row in rows:
            if row["applied"] and not math.isfinite(row["loss"]):
                raise TrainingFailure(self._describe_loss(row))
        seconds_left = self._pace.seconds_for(self.progress.total_steps - self.position.step)
        sentences_per_s = sum(row["sentences"] for row in rows) / sum(row["step_s"] for row in rows)
        self.progress.show(rows[-1], sentences_per_s, seconds_left)

    def save(self, **state: Any) -> bool:
        """Write a checkpoint, unless this position has one; returns whether it did.

        `state`: what the run resumes from, beside the position.
        """
        if self.saved_step == self.position.step:
            return False
        self.flush()
        state = {**asdict(self.position), **self.saving.run_state, **state}
        self.saving.checkpoints.save(self.position.step, state, self.saving.write)
        self.saved_step = self.position.step
        self.agreement.saved()
        return True

    def write_evaluation(self, figures: Mapping[str, Any], text: str) -> None:
        """Write the row of an evaluation at this position, and print what it found."""
        self.saving.checkpoints.check_owner()
        self.log.write({"kind": "evaluation", "step": self.position.step, **figures})
        self.say(text)

    def say(self, *lines: str) -> None:
        """Print lines on rank 0."""
        for line in lines:
            self.progress.say(line)

    def _describe_loss(self, row: Mapping[str, Any]) -> str:
        saved = f"step {self.saved_step} is saved" if self.saved_step else "nothing was saved yet"
        return (
            f"the loss of step {row['step']} is {row['loss']} in {self.engine.precision}; {saved}. "
            f"Lower {self.rates} or lengthen the warm-up, and continue with --resume auto"
        )

    def _describe_skips(self) -> str:
        why, or_else = "their gradients were no finite numbers", ""
        if self.engine.precision == "float16":
            why = f"float16 overflow (loss scale {self.engine.loss_scale():g})"
            or_else = ", or start a new run with precision=bfloat16"
        return (
            f"{self.position.skipped_in_a_row} steps in a row were skipped, up to step {self.position.step}: {why}; "
            f"lower {self.rates} and continue with --resume auto{or_else}"
        )
