"""What is kept of a run while it goes: its position, the rows of its steps, the line that shows it, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from spe_dist.config.shared import RunConfig
from spe_dist.distributed.checkpoint import Checkpoints
from spe_dist.distributed.engine import TrainingEngine
from spe_dist.distributed.launch import node_name
from spe_dist.errors import UnstableTraining
from spe_dist.training.agreement import Agreement
from spe_dist.training.background_save import BackgroundSave, Save
from spe_dist.training.health.failures import FailureLog, RecentBatches
from spe_dist.training.health.finite import LARGEST, Named, first_non_finite
from spe_dist.training.health.left_out import LeftOut
from spe_dist.training.health.spikes import RECENT_STEPS, SpikeWatch
from spe_dist.training.health.stragglers import Stragglers
from spe_dist.training.metrics import IsRepeated, MetricLog
from spe_dist.training.progress import Pace, ProgressLine
from spe_dist.training.terms import StepOutcome
from spe_dist.utils.memory import peak_memory_gib

# Fills a checkpoint's folder; a collective of the process group, None where there is one process only.
WriteCheckpoint = Callable[[Path, Any], None]


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
    """How a checkpoint comes about: `capture` takes hold of what it keeps, what it gives fills a folder with that.

    `capture(True)` copies it, so that training may go on before it is written.
    """

    checkpoints: Checkpoints
    capture: Callable[[bool], WriteCheckpoint]  # all ranks call both together
    run_state: Mapping[str, Any]  # what it and a run that resumes it have in common
    background: BackgroundSave | None = None  # None: training waits for each checkpoint


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
        state_pieces: Callable[[], Iterable[Named]],
        left_out: LeftOut,
        rates: str = "learning_rate",
    ) -> None:
        """`position`: where the run begins, at a checkpoint or at step 0. `state_pieces`: what this rank holds of all
        that a checkpoint keeps, by name. `left_out`: what is not trained. `rates`: the settings that tame a run.
        """
        self.settings = settings
        self.engine = engine
        self.position = position
        self.log = log
        self.progress = progress
        self.saving = saving
        self.agreement = agreement
        self.state_pieces = state_pieces
        self.left_out = left_out
        self.rates = rates
        self.batches = RecentBatches(settings.log_every_steps + settings.max_skipped_steps + 1)
        self.failures = FailureLog(log.path.parent, log.context)
        self._finite_step = -1  # the state of this step is known to be finite
        self.saved_step = position.step or None  # None: nothing is saved yet
        self.last_save: Save | None = None  # of this start
        self._save_times: dict[str, float] = {}  # of a checkpoint that the next row will tell of
        self._pace = Pace()
        self.stragglers = Stragglers(settings.slow_rank_factor)
        # Not when one is found: each rank looks at its own clock too, so the ranks need not find it together.
        self._nodes = log.context.all_gather_object(node_name()) if settings.slow_rank_factor else []
        self.spikes = self._watch_for_spikes()

    def _watch_for_spikes(self) -> SpikeWatch:
        factor = self.settings.rollback_on_spike
        return SpikeWatch(factor, self.log.recent_losses(RECENT_STEPS) if factor else ())

    def next_is_left_out(self) -> bool:
        """Whether the next step is one of those that a roll-back has left out."""
        return self.position.step + 1 in self.left_out.steps

    def leave_out(self) -> None:
        """Count a step that is not trained, and look whether all ranks stop now."""
        self.flush()
        self.saving.checkpoints.check_owner()
        self.position = replace(self.position, step=self.position.step + 1)
        self.log.write({"kind": "left_out", "step": self.position.step})
        self.agreement()

    def go_back(self, position: Position, repeated: IsRepeated) -> None:
        """Begin again where a checkpoint of this run stands; rows of later steps go, and those that are `repeated`."""
        self.position, self.saved_step, self._finite_step = position, position.step, -1
        self.log.go_back(position.step, repeated)
        self.spikes = self._watch_for_spikes()

    def add(
        self,
        outcome: StepOutcome,
        step_s: float,
        row: Mapping[str, Any],
        local: Mapping[str, float],
        sentence_ids: Sequence[int] = (),
    ) -> None:
        """Count a step that has ended, and write the rows that wait where that is due.

        `row`: its figures, `sentences` among them; `local`: this rank's own numbers, to be added over the ranks;
        `sentence_ids`: of this rank's part of the batch.
        """
        self.position = self.position.after(outcome.applied, step_s)
        self.batches.add(self.position.step, sentence_ids)
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
        self.log.add({**shared, **row, **self._save_times}, outcome.sums, {**local, **memory}, outcome.own_s)
        self._save_times = {}
        hopeless = self.position.skipped_in_a_row >= self.settings.max_skipped_steps
        if hopeless or self.position.step % self.settings.log_every_steps == 0:
            self.flush()
        if hopeless:
            raise self._skips()
        background = self.saving.background
        if background is not None and background.step is not None and self.agreement.save_ended:
            self._note_save(background.end())

    def flush(self) -> None:
        """Write the waiting rows and show the last.

        Raises:
            UnstableTraining: an applied loss is no number, or one that jumps takes the run back.
        """
        rows = self.log.flush(self.saving.checkpoints.check_owner)  # none beside those of a later start
        if not rows:
            return
        for row in rows:
            if row["applied"] and not math.isfinite(row["loss"]):
                why = f"the loss of step {row['step']} is {row['loss']} in {self.engine.precision}"
                raise UnstableTraining("loss", row["step"], why, self._remedy())
            usual = self.spikes.usual_loss(row)
            if usual is not None:
                why = f"the loss of step {row['step']} is {row['loss']:.4g}, {row['loss'] / usual:.3g} times the usual"
                raise UnstableTraining("spike", row["step"], why, self._remedy())
            self.left_out.replaced += row.get("replaced_sentences", 0)
        seconds_left = self._pace.seconds_for(self.progress.total_steps - self.position.step)
        sentences_per_s = sum(row["sentences"] for row in rows) / sum(row["step_s"] for row in rows)
        newly_slow = self.stragglers.look(self.log.own_s_of_ranks)
        self.progress.show(rows[-1], sentences_per_s, seconds_left, self.stragglers.slow)
        if newly_slow is not None:
            where = f"rank {newly_slow.rank} on {self._nodes[newly_slow.rank]}"
            self.say(f"warning: {where} {newly_slow}; all others wait for it: look at that machine")

    def check_finite(self) -> None:
        """Look at all that a checkpoint of this position would hold.

        Raises:
            UnstableTraining: some of it is no finite number, or far too large; it must be neither saved nor evaluated.
        """
        if self._finite_step == self.position.step:
            return
        bad = first_non_finite(self.state_pieces(), self.log.context)
        if bad is not None:
            what = f"{bad} is not finite or beyond {LARGEST:g}, in {self.engine.precision}"
            why = f"after step {self.position.step} {what}"
            raise UnstableTraining("state", self.position.step, why, self._remedy())
        self._finite_step = self.position.step

    def check_figures(self, figures: Mapping[str, float], at_end: bool) -> None:
        """Look at what an evaluation found, beside a state that is finite.

        A warning while training goes on, where each loss is looked at. Raises UnstableTraining at the end of a run.
        """
        bad = next((name for name, value in figures.items() if not math.isfinite(value)), None)
        if bad is None:
            return
        why = f"after step {self.position.step} {bad} is {figures[bad]}, in {self.engine.precision}"
        if at_end:
            raise UnstableTraining("evaluation", self.position.step, why, self._remedy())
        self.say(f"warning: {why}")

    def is_skipping(self) -> bool:
        """Whether the last steps were skipped. In float16 a single one is now and then: the loss scale is found so."""
        return self.position.skipped_in_a_row > (self.engine.precision == "float16")

    def check_end(self) -> None:
        """Raises UnstableTraining where the last steps were skipped: a run does not end as finished like that."""
        if self.is_skipping():
            raise self._skips()

    def report(self, failure: UnstableTraining, **done: Any) -> dict[str, Any]:
        """Write down what is known of a failure, in OUTPUT/failures.jsonl; the row. `done`: what follows from it."""
        self.saving.checkpoints.check_owner()
        bad = first_non_finite(self.state_pieces(), self.log.context)
        return self.failures.write(failure, self.batches.of(failure.step), bad, **done)

    def save(self, wait: bool = False, **state: Any) -> bool:
        """Write a checkpoint, unless this position has one; returns whether it did.

        Where saving is in the background, it is written while training goes on: not the first of a run, which shows
        whether and how fast it can be written, nor where `wait` says that nothing goes on. One is written at a time.

        None is written while steps are skipped: weights that only give infinities may be finite themselves, and would
        take the place of good ones.

        `state`: what the run resumes from, beside the position. Raises UnstableTraining: see `check_finite`.
        """
        self.end_save()
        if self.saved_step == self.position.step:
            return False
        self.flush()
        if self.is_skipping():
            return False
        self.check_finite()
        began, step = time.monotonic(), self.position.step
        state = {**asdict(self.position), **self.saving.run_state, **self.left_out.state(), **state}
        background = None if wait or self.saved_step is None else self.saving.background
        write = self.saving.capture(background is not None)
        if background is not None:
            background.start(step, state, write, began)
        else:
            checkpoints = self.saving.checkpoints
            checkpoints.save(step, state, lambda folder: write(folder, checkpoints.context.control))
            seconds = time.monotonic() - began
            self._note_save(Save(step, seconds, seconds, in_background=False))
        self.agreement.saved()
        return True

    def end_save(self) -> None:
        """Wait for a checkpoint that is being written. Raises CheckpointError where it cannot be."""
        save = None if self.saving.background is None else self.saving.background.wait()
        if save is not None:
            self._note_save(save)

    def _note_save(self, save: Save) -> None:
        self.saved_step, self.last_save = save.step, save
        self._save_times = {"save_s": save.total_s, "save_wait_s": save.waited_s}
        waited = f", training waited {save.waited_s:.1f} s" if save.in_background else ""
        self.say(f"saved step {save.step:,} in {save.total_s:.1f} s{waited}")

    def write_evaluation(self, figures: Mapping[str, Any], text: str) -> None:
        """Write the row of an evaluation at this position, and print what it found."""
        self.saving.checkpoints.check_owner()
        self.log.write({"kind": "evaluation", "step": self.position.step, **figures})
        self.say(text)

    def say(self, *lines: str) -> None:
        """Print lines on rank 0."""
        for line in lines:
            self.progress.say(line)

    def describe_saved(self) -> str:
        """What a run that ends here has saved last."""
        folder = self.saving.checkpoints.folder
        saved = self.saved_step is not None
        newest = f"saved {folder / f'step_{self.saved_step:08d}'}" if saved else "nothing is saved"
        if self.saved_step == self.position.step:
            return newest
        return f"the last {self.position.skipped_in_a_row} steps were skipped and are not saved; {newest}"

    def _skips(self) -> UnstableTraining:
        cause, or_else = "their gradients were no finite numbers", ""
        if self.engine.precision == "float16":
            cause = f"float16 overflow (loss scale {self.engine.loss_scale():g})"
            or_else = ", or start a new run with precision=bfloat16"
        row, last = self.position.skipped_in_a_row, self.position.step
        counted = "1 step was" if row == 1 else f"{row} steps in a row were"
        why = f"{counted} skipped, up to step {last}: {cause}"
        return UnstableTraining("skipped", last - row + 1, why, self._remedy() + or_else)

    def _remedy(self) -> str:
        self.end_save()
        saved = f"Step {self.saved_step} is saved" if self.saved_step else "Nothing was saved yet"
        return (
            f"{saved}; {self.failures.path} has the step's sentences. Lower {self.rates}, lengthen the warm-up or "
            "leave sentences out, and continue with --resume auto"
        )
