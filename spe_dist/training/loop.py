"""The loop around the training step: what happens between steps, and when.

Every decision that the ranks must share (stop, checkpoint by time) is agreed at the end of a micro-batch by one small
all-reduce; everything else follows from the step number and the agreed figures, so that no rank waits alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from spe_dist.config import Config
from spe_dist.distributed.checkpoint import Checkpoints
from spe_dist.distributed.context import RankContext
from spe_dist.errors import TrainingFailure
from spe_dist.training.metrics import MetricLog
from spe_dist.training.progress import ProgressLine
from spe_dist.training.schedule import learning_rate
from spe_dist.training.step import StepOutcome, TrainingStep

if TYPE_CHECKING:
    from spe_dist.data.stream import StepBatch


class Stop(Protocol):
    """Whether this rank was asked to stop, and by what."""

    @property
    def requested(self) -> bool: ...

    @property
    def reason(self) -> str: ...


@dataclass(frozen=True)
class Position:
    """How far a run is. A step is an attempted global batch; a float16 overflow skips its update."""

    step: int = 0
    applied_steps: int = 0
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    trained_s: float = 0.0

    def after(self, applied: bool, seconds: float) -> Position:
        return Position(
            self.step + 1,
            self.applied_steps + applied,
            self.skipped_steps + (not applied),
            0 if applied else self.skipped_in_a_row + 1,
            self.trained_s + seconds,
        )


class Agreement:
    """Asks all ranks at the end of a micro-batch: was any told to stop, does rank 0 want a checkpoint by its clock?"""

    def __init__(self, context: RankContext, stop: Stop, checkpoint_every_minutes: float) -> None:
        self.context = context
        self.stop_request = stop
        self.every_s = checkpoint_every_minutes * 60
        self.stop = False
        self.checkpoint_due = False
        self.saved_at = time.monotonic()

    def __call__(self) -> bool:
        """Whether all ranks stop now; a collective."""
        due = self.context.is_main and self.every_s > 0 and time.monotonic() - self.saved_at >= self.every_s
        stop, checkpoint = self.context.max_numbers([self.stop_request.requested, due])
        self.stop, self.checkpoint_due = bool(stop), bool(checkpoint)
        return self.stop

    def saved(self) -> None:
        self.saved_at, self.checkpoint_due = time.monotonic(), False


class Trainer:
    """Trains from `position` to `total_steps`."""

    def __init__(
        self,
        *,
        config: Config,
        context: RankContext,
        step: TrainingStep,
        agreement: Agreement,
        batches: Iterator[StepBatch],
        position: Position,
        total_steps: int,
        warmup_steps: int,
        accumulation: int,
        checkpoints: Checkpoints,
        write_checkpoint: Callable[[Path], None],
        data_state: Callable[[int], dict[str, Any]],
        evaluate: Callable[[], dict[str, float]],
        log: MetricLog,
        progress: ProgressLine,
    ) -> None:
        self.config = config
        self.context = context
        self.step = step
        self.agreement = agreement
        self.batches = batches
        self.position = position
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.accumulation = accumulation
        self.checkpoints = checkpoints
        self.write_checkpoint = write_checkpoint
        self.data_state = data_state
        self.evaluate = evaluate
        self.log = log
        self.progress = progress
        self.queued_keys = int(step.moco.pair_queue.fill) if step.moco else 0
        self._saved_step = position.step if position.step else -1
        self._evaluated_step = -1
        self._grace_time_checked = False
        self._started = (position.step, time.monotonic())

    def run(self) -> bool:
        """Train and save; True where the last step was reached, False where the run was asked to stop."""
        if self.position.step >= self.total_steps:
            return True
        self.step.engine.train()
        if self.step.moco is not None:
            self.step.moco.check_equal()
        while self.position.step < self.total_steps and not self.agreement.stop:
            began = time.monotonic()
            batch = next(self.batches)
            waited_s = time.monotonic() - began
            rate = learning_rate(
                self.position.applied_steps,
                peak=self.config.optimizer.learning_rate,
                warmup_steps=self.warmup_steps,
                total_steps=self.total_steps,
            )
            outcome = self.step(batch.step, rate, batch.micro_batches)
            if outcome is not None:
                self._record(batch, outcome, rate, waited_s, time.monotonic() - began)
                self._between_steps()
        self._flush()
        if self.position.step == self.total_steps:
            self._evaluate()
        self._save()
        return self.position.step == self.total_steps

    def _record(self, batch: StepBatch, outcome: StepOutcome, rate: float, waited_s: float, step_s: float) -> None:
        self.position = self.position.after(outcome.applied, step_s)
        if outcome.applied and self.step.moco is not None:
            self.queued_keys = min(self.step.moco.pair_queue.queue_keys, self.queued_keys + outcome.counts["cspo"])
        engine = self.step.engine
        row = {
            "kind": "train",
            "step": self.position.step,
            "epoch": batch.epoch,
            "sentences": outcome.counts["cspo"],
            "masked_pieces": outcome.counts["tbo"],
            "permuted_spans": outcome.counts["spo"],
            "learning_rate": rate,
            "grad_norm": engine.grad_norm(),
            "loss_scale": engine.loss_scale(),
            "applied": int(outcome.applied),
            "skipped_steps": self.position.skipped_steps,
            "queue_fill": self.queued_keys,
            "step_s": step_s,
            "sentences_per_s": outcome.counts["cspo"] / step_s,
            "weights": self.step.weights,
        }
        local = {
            "pieces": float(sum(micro_batch.n_tokens for micro_batch in batch.micro_batches)),
            "data_wait_s": waited_s,
            "memory_gib": memory_gib(self.context.device),
        }
        self.log.add(row, outcome.sums, local)

    def _between_steps(self) -> None:
        train, step = self.config.train, self.position.step
        first = self._saved_step < 0
        if step % train.log_every_steps == 0 or first or self.position.skipped_in_a_row >= train.max_skipped_steps:
            self._flush()
        if self.position.skipped_in_a_row >= train.max_skipped_steps:
            scale, half = self.step.engine.loss_scale(), self.step.engine.precision == "float16"
            raise TrainingFailure(
                f"{self.position.skipped_in_a_row} steps in a row were skipped, up to step {step}: "
                f"{f'float16 overflow (loss scale {scale:g})' if half else 'their gradients were no finite numbers'}; "
                "lower learning_rate and continue with --resume auto"
                f"{', or start anew with precision=bfloat16' if half else ''}"
            )
        if self.agreement.stop:  # whoever asked may not wait for an evaluation
            self._save()
        if train.check_every_steps and step % train.check_every_steps == 0 and self.step.moco is not None:
            self.step.moco.check_equal()
        if train.evaluate_every_steps and step % train.evaluate_every_steps == 0:
            self._evaluate()
        by_steps = train.checkpoint_every_steps and step % train.checkpoint_every_steps == 0
        if step < self.total_steps and (first or by_steps or self.agreement.checkpoint_due):
            self._save()

    def _flush(self) -> None:
        """Write the waiting rows and show the last; a loss that is no number ends the run before it is saved."""
        rows = self.log.flush()
        if not rows:
            return
        for row in rows:
            if row["applied"] and not math.isfinite(row["loss"]):
                saved = f"step {self._saved_step} is saved" if self._saved_step > 0 else "nothing was saved yet"
                raise TrainingFailure(
                    f"the loss of step {row['step']} is {row['loss']} in {self.step.engine.precision}; {saved}. "
                    "Lower learning_rate or lengthen the warm-up, and continue with --resume auto"
                )
        first_step, began = self._started
        per_step = (time.monotonic() - began) / max(1, self.position.step - first_step)
        sentences_per_s = sum(row["sentences"] for row in rows) / sum(row["step_s"] for row in rows)
        self.progress.show(rows[-1], sentences_per_s, per_step * (self.total_steps - self.position.step))

    def _evaluate(self) -> None:
        if self._evaluated_step == self.position.step:
            return
        self._evaluated_step = self.position.step
        self._flush()
        self.step.engine.eval()
        figures = self.evaluate()
        self.step.engine.train()
        self.log.write({"kind": "evaluation", "step": self.position.step, **figures})
        self.progress.say(f"held out, step {self.position.step:,}: {describe_evaluation(figures)}")

    def _save(self) -> None:
        if self._saved_step == self.position.step:
            return
        self._flush()
        state = {
            **asdict(self.position),
            "data": self.data_state(self.position.step),
            "ranks": self.context.ranks,
            "zero_stage": self.step.engine.zero_stage,
            "precision": self.step.engine.precision,
            "total_steps": self.total_steps,
        }
        self.checkpoints.save(self.position.step, state, self.write_checkpoint)
        self._saved_step = self.position.step
        self.agreement.saved()
        if not self._grace_time_checked:
            self._grace_time_checked = True
            self._warn_about_grace_time()

    def _warn_about_grace_time(self) -> None:
        """After the first checkpoint of this start: is there time to save between a request to stop and the kill?"""
        micro_batch_s = self.position.trained_s / self.position.step / self.accumulation
        needed_s = micro_batch_s + self.checkpoints.last_save_s
        if needed_s > self.config.train.grace_time_s:
            self.progress.say(
                f"warning: a micro-batch ({micro_batch_s:.1f} s) and a checkpoint "
                f"({self.checkpoints.last_save_s:.1f} s) take longer than "
                f"grace_time_s={self.config.train.grace_time_s:g}: a run that is told to stop may be killed before it "
                "is saved. Lower micro_batch_sentences, write to a faster disk, or have the job signalled earlier "
                "(sbatch --signal=B:USR1@SECONDS) and raise grace_time_s"
            )


def describe_evaluation(figures: dict[str, float]) -> str:
    """The figures of an evaluation that tell whether anything was learned, on one line."""
    parts = []
    for label, name, against_label, against in (
        ("tbo", "heldout/tbo_nats", "count model", "heldout/tbo_count_model_nats"),
        ("spo", "heldout/spo_nats", "entropy", "heldout/spo_entropy"),
    ):
        if name in figures:
            parts.append(f"{label} {figures[name]:.3f} nats ({against_label} {figures[against]:.3f})")
    if "heldout/top1_same_layout" in figures:
        parts.append(
            f"top-1 {figures['heldout/top1_same_layout']:.1%} of the same layout "
            f"(chance {figures['heldout/top1_same_layout_chance']:.1%}, "
            f"control {figures['heldout/top1_same_layout_control']:.1%})"
        )
    return ", ".join(parts) or "nothing to report"


def memory_gib(device: torch.device) -> float:
    """Peak of allocated GPU memory, or this process's resident memory on a CPU, in GiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return float("nan")
    return pages * 4096 / 2**30
