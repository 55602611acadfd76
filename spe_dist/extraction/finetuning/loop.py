"""The loop around the fine-tuning step: epochs, evaluation on dev, the best model, early stopping, checkpoints.

As in pre-training, what the ranks must agree on is agreed by one small all-reduce at the end of a step; all else
follows from the step number and from scores that are the same on all ranks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spe_dist.distributed.checkpoint import Checkpoints
from spe_dist.distributed.context import RankContext
from spe_dist.errors import TrainingFailure
from spe_dist.extraction.config import FinetuneConfig
from spe_dist.extraction.finetuning.data import TrainingData
from spe_dist.extraction.finetuning.learning_rates import RateGroups, uncorrected_factor
from spe_dist.extraction.finetuning.step import WEIGHTS, FinetuneStep
from spe_dist.extraction.scoring import Scores
from spe_dist.training.loop import Agreement, Position, memory_gib
from spe_dist.training.metrics import MetricLog, ratio
from spe_dist.training.progress import ProgressLine
from spe_dist.training.schedule import learning_rate
from spe_dist.training.step import StepOutcome


@dataclass(frozen=True)
class Best:
    """The best epoch so far. Epochs count from 1 here, as people count them; 0: none yet."""

    epoch: int = 0
    score: float = -1.0
    evaluated_epoch: int = 0  # the last epoch that was evaluated
    worse_evaluations: int = 0  # since the best one, those while warming up left out

    def after(self, epoch: int, score: float, warming_up: bool) -> Best:
        if score > self.score:
            return Best(epoch, score, epoch, 0)
        return Best(self.epoch, self.score, epoch, self.worse_evaluations + (not warming_up))


class Finetuner:
    """Trains from `position` until the last epoch, early stopping or a request to stop."""

    def __init__(
        self,
        *,
        config: FinetuneConfig,
        context: RankContext,
        step: FinetuneStep,
        rates: RateGroups,
        data: TrainingData,
        agreement: Agreement,
        position: Position,
        best: Best,
        warmup_steps: int,
        checkpoints: Checkpoints,
        write_checkpoint: Callable[[Path], None],
        run_state: Mapping[str, Any],
        evaluate: Callable[[], Scores | None],
        keep_model: Callable[[int, Scores | None], None],
        log: MetricLog,
        progress: ProgressLine,
    ) -> None:
        self.config = config
        self.context = context
        self.step = step
        self.rates = rates
        self.data = data
        self.agreement = agreement
        self.position = position
        self.best = best
        self.warmup_steps = warmup_steps
        self.checkpoints = checkpoints
        self.write_checkpoint = write_checkpoint
        self.run_state = run_state
        self.evaluate = evaluate
        self.keep_model = keep_model
        self.log = log
        self.progress = progress
        self._saved_step = position.step
        self._started = (position.step, time.monotonic())

    def run(self) -> bool:
        """Train; True where training has ended, False where the run was asked to stop and has saved."""
        self.step.engine.train()
        self._end_epoch()  # of a run that was stopped between its last step and its evaluation
        while not self._ended() and not self.agreement.stop:
            began = time.monotonic()
            number = self.position.step
            batch, gold_entities, sentences = self.data.batch(number, self.context.rank, self.context.ranks)
            factor = learning_rate(
                self.position.applied_steps,
                peak=1.0,
                warmup_steps=self.warmup_steps,
                total_steps=self.data.total_steps,
            )
            factor *= uncorrected_factor(self.position.applied_steps, self.config.optimizer)
            outcome = self.step(number, self.rates.rates(factor), batch, gold_entities)
            self.agreement()
            local = {"pieces": float(batch.n_tokens), "memory_gib": memory_gib(self.context.device)}
            local["gold_sentences"] = float(gold_entities.sum())
            self._record(outcome, factor, sentences, local, time.monotonic() - began)
            self._between_steps()
        self._flush()
        if not self._ended():
            self._save()
        return self._ended()

    @property
    def epoch(self) -> int:
        """Epochs that are finished."""
        return self.position.step // self.data.steps_per_epoch

    def _ended(self) -> bool:
        patience = self.config.train.patience
        stopped_early = 0 < patience <= self.best.worse_evaluations and self.config.data.dev is not None
        finished = self.position.step >= self.data.total_steps or stopped_early
        return finished and self.best.evaluated_epoch == self.epoch

    def _record(
        self, outcome: StepOutcome, factor: float, sentences: int, local: dict[str, float], step_s: float
    ) -> None:
        self.position = self.position.after(outcome.applied, step_s)
        engine, optimizer = self.step.engine, self.config.optimizer
        row = {
            "kind": "train",
            "step": self.position.step,
            "epoch": (self.position.step - 1) // self.data.steps_per_epoch + 1,
            "sentences": sentences,
            "counts": outcome.counts,
            "learning_rate": factor * optimizer.learning_rate,
            "head_learning_rate": factor * optimizer.head_learning_rate,
            "grad_norm": engine.grad_norm(),
            "loss_scale": engine.loss_scale(),
            "applied": int(outcome.applied),
            "skipped_steps": self.position.skipped_steps,
            "step_s": step_s,
            "sentences_per_s": sentences / step_s,
        }
        self.log.add(row, outcome.sums, local)

    def _between_steps(self) -> None:
        train, step = self.config.train, self.position.step
        if step % train.log_every_steps == 0 or self.position.skipped_in_a_row >= train.max_skipped_steps:
            self._flush()
        if self.position.skipped_in_a_row >= train.max_skipped_steps:
            raise TrainingFailure(
                f"{self.position.skipped_in_a_row} steps in a row were skipped, up to step {step}: their gradients "
                f"were no finite numbers in {self.step.engine.precision}; lower learning_rate and head_learning_rate, "
                "or start anew with another precision"
            )
        if self.agreement.stop:  # whoever asked may not wait for an evaluation
            return
        self._end_epoch()
        by_epochs = (
            train.checkpoint_every_epochs
            and step % self.data.steps_per_epoch == 0
            and self.epoch % train.checkpoint_every_epochs == 0
        )
        if (by_epochs or self.agreement.checkpoint_due) and not self._ended():
            self._save()

    def _end_epoch(self) -> None:
        """Evaluate where an epoch has ended whose turn it is, and keep the model if it is the best."""
        step, epoch = self.position.step, self.epoch
        due = epoch % self.config.train.evaluate_every_epochs == 0 or step == self.data.total_steps
        if step == 0 or step % self.data.steps_per_epoch or not due or self.best.evaluated_epoch == epoch:
            return
        self._flush()
        began = time.monotonic()
        scores = self.evaluate()
        # without dev the last epoch is the best one
        score = float(epoch) if scores is None else scores.exact_f1_sum
        self.best = self.best.after(epoch, score, self.position.applied_steps < self.warmup_steps)
        is_best = self.best.epoch == epoch
        if is_best:
            self.keep_model(epoch, scores)
        if scores is not None:
            self.log.write(evaluation_row(step, epoch, scores, time.monotonic() - began))
            self.progress.say(
                f"epoch {epoch:,} of {self.data.epochs:,}: dev {describe(scores)}{', best so far' if is_best else ''}"
            )

    def _flush(self) -> None:
        """Write the waiting rows and show the last; a loss that is no number ends the run before it is saved."""
        rows = self.log.flush()
        if not rows:
            return
        for row in rows:
            if row["applied"] and not math.isfinite(row["loss"]):
                raise TrainingFailure(
                    f"the loss of step {row['step']} is {row['loss']} in {self.step.engine.precision}; lower "
                    "learning_rate and head_learning_rate, or lengthen the warm-up"
                )
        first_step, began = self._started
        per_step = (time.monotonic() - began) / max(1, self.position.step - first_step)
        sentences_per_s = sum(row["sentences"] for row in rows) / sum(row["step_s"] for row in rows)
        self.progress.show(rows[-1], sentences_per_s, per_step * (self.data.total_steps - self.position.step))

    def _save(self) -> None:
        if self._saved_step == self.position.step:
            return
        self._flush()
        state = {**asdict(self.position), "best": asdict(self.best), **self.run_state}
        self.checkpoints.save(self.position.step, state, self.write_checkpoint)
        self._saved_step = self.position.step
        self.agreement.saved()


def finish_row(row: dict[str, Any], sums: Mapping[str, Sequence[float]], ranks: int) -> dict[str, Any]:
    """A row of means for metrics.jsonl: losses and accuracies of each term, by their counts over all ranks."""
    counts = row.pop("counts")
    for name, count in counts.items():
        row[f"{name}_loss"] = sums[f"{name}/loss"][0] / max(count, 1)
        row[f"{name}_accuracy"] = ratio(sums[f"{name}/correct"][0], count)
        row[f"{name}_examples"] = count
    row["loss"] = sum(weight * row[f"{name}_loss"] for name, weight in WEIGHTS.items() if name in counts)
    row["gold_sentences"] = sums["gold_sentences"][0] / row["sentences"]
    row["pieces_per_s"] = sums["pieces"][0] / row["step_s"]
    row["memory_gib"] = sums["memory_gib"][0] / ranks
    return row


def evaluation_row(step: int, epoch: int, scores: Scores, seconds: float) -> dict[str, Any]:
    """The figures of an evaluation on dev, as fractions of 1."""
    row: dict[str, Any] = {"kind": "evaluation", "step": step, "epoch": epoch, "dev/seconds": seconds}
    for name in ("entity", "relation", "ent_rel"):
        counts = getattr(scores, name)
        row |= {f"dev/{name}_{part}": getattr(counts, part) for part in ("precision", "recall", "f1")}
    return row | {"dev/entity_f1_plus_ent_rel_f1": scores.exact_f1_sum}


def describe(scores: Scores) -> str:
    """F1 in percent on one line."""
    figures = (("entity", scores.entity), ("relation", scores.relation), ("Ent+Rel", scores.ent_rel))
    return "F1 " + ", ".join(f"{name} {100 * counts.f1:.2f}" for name, counts in figures)
