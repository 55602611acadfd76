"""The loop around the fine-tuning step: epochs, evaluation on dev, the best model, early stopping, checkpoints.

As in pre-training, what the ranks must agree on is agreed by one small all-reduce at the end of a step; all else
follows from the step number and from scores that are the same on all ranks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from spe_dist.config.finetuning import FinetuneConfig
from spe_dist.errors import UnstableTraining
from spe_dist.extraction.scoring.matching import METRICS
from spe_dist.extraction.scoring.scores import Scores
from spe_dist.extraction.scoring.table import f1_line
from spe_dist.finetuning.data import TrainingData
from spe_dist.finetuning.learning_rates import RateGroups, uncorrected_factor
from spe_dist.finetuning.step import WEIGHTS, FinetuneStep
from spe_dist.training.journal import Journal
from spe_dist.training.metrics import add_losses, ratio
from spe_dist.training.rates.schedule import Schedule
from spe_dist.training.resume import ResumePoint
from spe_dist.training.terms import StepOutcome


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

    def is_repeated(self, row: Mapping[str, Any]) -> bool:
        """Whether a row of metrics.jsonl is of an evaluation that a run which goes on from here makes again."""
        return row["kind"] == "evaluation" and row["epoch"] > self.evaluated_epoch


class Finetuner:
    """Trains from the journal's position until the last epoch, early stopping or a request to stop."""

    def __init__(
        self,
        *,
        config: FinetuneConfig,
        step: FinetuneStep,
        rates: RateGroups,
        schedule: Schedule,
        data: TrainingData,
        journal: Journal,
        best: Best,
        evaluate: Callable[[], Scores | None],
        keep_model: Callable[[int, Scores | None], None],
        recover: Callable[[UnstableTraining], ResumePoint],
    ) -> None:
        """`schedule`: of the factor, 0 to 1, by which all peaks of `rates` are multiplied. `evaluate`: scores of dev,
        None without dev, and where a rank was asked to stop meanwhile. `recover`: takes model, OUTPUT/model and journal
        back to before a failure, or raises it.
        """
        self.config = config
        self.step = step
        self.rates = rates
        self.schedule = schedule
        self.data = data
        self.journal = journal
        self.best = best
        self.evaluate = evaluate
        self.keep_model = keep_model
        self.recover = recover

    def run(self) -> bool:
        """Train; True where training has ended, False where the run was asked to stop and has saved."""
        self.step.engine.train()
        while True:
            try:
                self._train()
                return self._ended()
            except UnstableTraining as failure:
                self.best = Best(**self.recover(failure).state["best"])

    def _train(self) -> None:
        self._end_epoch()  # of a run that was stopped between its last step and its evaluation
        while not self._ended() and not self.journal.agreement.stop:
            if self.journal.next_is_left_out():
                self.journal.leave_out()
                self._between_steps()
                continue
            began = time.monotonic()
            position, context = self.journal.position, self.step.context
            with self.step.own_work:
                batch, gold_entities, sentences = self.data.batch(position.step, context.rank, context.ranks)
            factor = self.schedule.rate(position.applied_steps)
            uncorrected = factor * uncorrected_factor(position.applied_steps, self.config.optimizer)
            outcome = self.step(position.step, self.rates.rates(uncorrected), batch, gold_entities)
            self.journal.agreement()
            local = {"pieces": float(batch.n_tokens), "gold_sentences": float(gold_entities.sum())}
            self._record(outcome, factor, sentences, local, time.monotonic() - began)
            self._between_steps()
        self.journal.flush()
        if self._ended():
            self.journal.check_end()
            self.journal.end_save()
        else:
            self._save(wait=True)

    @property
    def epoch(self) -> int:
        """Epochs that are finished."""
        return self.journal.position.step // self.data.steps_per_epoch

    def _ended(self) -> bool:
        patience = self.config.train.patience
        stopped_early = 0 < patience <= self.best.worse_evaluations and self.config.data.dev is not None
        finished = self.journal.position.step >= self.data.total_steps or stopped_early
        return finished and self.best.evaluated_epoch == self.epoch

    def _record(
        self, outcome: StepOutcome, factor: float, sentences: int, local: dict[str, float], step_s: float
    ) -> None:
        optimizer = self.config.optimizer
        row = {
            "epoch": self.epoch + 1,
            "sentences": sentences,
            "counts": outcome.counts,
            "learning_rate": factor * optimizer.learning_rate,
            "head_learning_rate": factor * optimizer.head_learning_rate,
        }
        context = self.step.context
        step = self.journal.position.step
        ids = self.data.sentence_ids(step, context.rank, context.ranks)
        if self.journal.left_out.sentences:
            local = {**local, "replaced_sentences": float(self.data.replaced(step)) / context.ranks}
        self.journal.add(outcome, step_s, row, local, ids)

    def _between_steps(self) -> None:
        if self.journal.agreement.stop:  # whoever asked may not wait for an evaluation
            return
        self._end_epoch()
        every, step = self.config.train.checkpoint_every_epochs, self.journal.position.step
        by_epochs = every and step % self.data.steps_per_epoch == 0 and self.epoch % every == 0
        agreement = self.journal.agreement
        if (by_epochs or agreement.checkpoint_due) and not self._ended() and not agreement.stop:
            self._save()

    def _end_epoch(self) -> None:
        """Evaluate where an epoch has ended whose turn it is, and keep the model if it is the best.

        Where a rank is asked to stop before the end of the evaluation, the run that resumes makes it.
        """
        position, epoch = self.journal.position, self.epoch
        due = epoch % self.config.train.evaluate_every_epochs == 0 or position.step == self.data.total_steps
        if epoch == self.best.evaluated_epoch or position.step % self.data.steps_per_epoch or not due:
            return
        self.journal.flush()
        self.journal.check_finite()
        if position.step == self.data.total_steps:
            self.journal.check_end()
        began = time.monotonic()
        scores = self.evaluate()
        if scores is None and self.config.data.dev is not None:
            self.journal.agreement()
            return
        # without dev the last epoch is the best one
        score = float(epoch) if scores is None else scores.exact_f1_sum
        self.best = self.best.after(epoch, score, self.schedule.is_warming_up(position.applied_steps))
        is_best = self.best.epoch == epoch
        if is_best:
            self.keep_model(epoch, scores)
        if scores is not None:
            text = f"epoch {epoch:,} of {self.data.epochs:,}: dev {f1_line(scores.measured_f1s)}"
            figures = evaluation_figures(epoch, scores, time.monotonic() - began)
            self.journal.write_evaluation(figures, f"{text}{', best so far' if is_best else ''}")

    def _save(self, wait: bool = False) -> None:
        self.journal.save(wait, best=asdict(self.best))


def finish_row(row: dict[str, Any], sums: Mapping[str, Sequence[float]], ranks: int) -> dict[str, Any]:
    """A row of means for metrics.jsonl: losses and accuracies of each term, by their counts over all ranks."""
    counts = row.pop("counts")
    add_losses(row, sums, counts, WEIGHTS)
    for name, count in counts.items():
        row[f"{name}_accuracy"] = ratio(sums[f"{name}/correct"][0], count)
        row[f"{name}_examples"] = count
    row["gold_sentences"] = sums["gold_sentences"][0] / row["sentences"]
    return row


def evaluation_figures(epoch: int, scores: Scores, seconds: float) -> dict[str, Any]:
    """The figures of an evaluation on dev, as fractions of 1."""
    figures: dict[str, Any] = {"epoch": epoch, "dev/seconds": seconds}
    for name in METRICS:
        counts = scores.total(name)
        figures |= {f"dev/{name}_{part}": getattr(counts, part) for part in ("precision", "recall", "f1")}
    return figures | {"dev/entity_f1_plus_ent_rel_f1": scores.exact_f1_sum}
