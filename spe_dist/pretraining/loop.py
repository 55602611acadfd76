"""The loop around the training step: what happens between steps, and when.

Every decision that the ranks must share (stop, checkpoint by time) is agreed at the end of a micro-batch by one small
all-reduce; everything else follows from the step number and the agreed figures, so that no rank waits alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from spe_dist.config.pretraining import Config
from spe_dist.errors import UnstableTraining
from spe_dist.pretraining.step import TrainingStep
from spe_dist.training.journal import Journal
from spe_dist.training.metrics import add_losses, ratio
from spe_dist.training.rates.groups import GroupRates
from spe_dist.training.rates.schedule import Schedule
from spe_dist.training.terms import StepOutcome

if TYPE_CHECKING:
    from spe_dist.data.batches.stream import StepBatch


class Batches(Protocol):
    """Batches of steps in order, prepared by processes that `close` ends."""

    def __iter__(self) -> Iterator[StepBatch]: ...

    def __next__(self) -> StepBatch: ...

    def close(self) -> None: ...


class Trainer:
    """Trains from the journal's position to the last step of the schedule."""

    def __init__(
        self,
        *,
        config: Config,
        step: TrainingStep,
        schedule: Schedule,
        batches_from: Callable[[int], Batches],
        accumulation: int,
        journal: Journal,
        data_state: Callable[[int], dict[str, Any]],
        evaluate: Callable[[], dict[str, float] | None],
        recover: Callable[[UnstableTraining], object],
        group_rates: GroupRates | None = None,
    ) -> None:
        """`batches_from`: those of a step and all that follow. `evaluate`: figures of the model, None where a stop was
        agreed meanwhile. `recover`: takes model and journal back to before a failure, or raises it. `group_rates`: of
        the parameter groups, where they have rates of their own.
        """
        self.config = config
        self.step = step
        self.schedule = schedule
        self.batches_from = batches_from
        self.accumulation = accumulation
        self.journal = journal
        self.data_state = data_state
        self.evaluate = evaluate
        self.recover = recover
        self.group_rates = group_rates
        self._begin()
        self._grace_time_checked = False

    def run(self) -> bool:
        """Train and save; True where the run is finished, False where it was asked to stop."""
        if self._steps_left < 0:
            return True
        self.step.engine.train()
        if self.step.moco is not None:
            self.step.moco.check_equal()
        while True:
            try:
                self._train()
                break
            except UnstableTraining as failure:
                self.batches.close()
                self.recover(failure)
                self._begin()
        self.batches.close()
        return self._steps_left == 0 and self._evaluated_step == self.journal.position.step

    def _begin(self) -> None:
        """What follows from the journal's position, at the start and after a roll-back."""
        moco = self.step.moco
        self.batches = self.batches_from(self.journal.position.step)
        self.queued_keys = int(moco.pair_queue.fill) if moco is not None else 0
        self._evaluated_step = self.journal.log.last_step("evaluation")

    def _train(self) -> None:
        self._evaluate()  # of a run that was stopped before it had
        while self._steps_left > 0 and not self.journal.agreement.stop:
            began = time.monotonic()
            with self.journal.log.context.doing("loading data"):
                batch = next(self.batches)
            waited_s = time.monotonic() - began
            if self.journal.next_is_left_out():
                self.journal.leave_out()
                self._between_steps()
                continue
            applied_steps = self.journal.position.applied_steps
            rate = self.schedule.rate(applied_steps)
            of_groups = None if self.group_rates is None else self.group_rates.at(applied_steps)
            outcome = self.step(batch.step, rate, batch.micro_batches, of_groups)
            if outcome is not None:
                rates = {"learning_rate": rate}
                if of_groups is not None:
                    rates["encoder_learning_rate"] = of_groups.encoder
                self._record(batch, outcome, rates, waited_s, time.monotonic() - began)
                self._between_steps()
        self._save(wait=True)

    @property
    def _steps_left(self) -> int:
        return self.schedule.total_steps - self.journal.position.step

    def _record(
        self, batch: StepBatch, outcome: StepOutcome, rates: dict[str, float], waited_s: float, step_s: float
    ) -> None:
        if outcome.applied and self.step.moco is not None:
            self.queued_keys = min(self.step.moco.pair_queue.queue_keys, self.queued_keys + outcome.counts["cspo"])
        row = {
            "epoch": batch.epoch,
            "sentences": outcome.counts["cspo"],
            "masked_pieces": outcome.counts["tbo"],
            "permuted_spans": outcome.counts["spo"],
            **rates,
            "queue_fill": self.queued_keys,
            "weights": self.step.weights,
        }
        if self.config.objectives.mlm:
            row["mlm_pieces"] = outcome.counts["mlm"]
        pieces = sum(micro_batch.n_tokens for micro_batch in batch.micro_batches)
        ids = [number for micro_batch in batch.micro_batches for number in micro_batch.sentence_ids_B.tolist()]
        local = {"pieces": float(pieces), "data_wait_s": waited_s}
        if self.journal.left_out.sentences:
            local["replaced_sentences"] = float(batch.replaced)
        with_data = replace(outcome, own_s=lambda: waited_s + outcome.own_s())
        self.journal.add(with_data, step_s, row, local, ids)

    def _between_steps(self) -> None:
        train, step = self.config.train, self.journal.position.step
        first = self.journal.saved_step is None
        if self.journal.agreement.stop:  # whoever asked waits for a checkpoint only
            return
        self._check_grace_time()
        if train.check_every_steps and step % train.check_every_steps == 0 and self.step.moco is not None:
            self.step.moco.check_equal()
        self._evaluate()
        by_steps = train.checkpoint_every_steps and step % train.checkpoint_every_steps == 0
        if self._steps_left > 0 and (first or by_steps or self.journal.agreement.checkpoint_due):
            self._save()

    def _evaluate(self) -> None:
        """Evaluate at a step whose turn it is; where a stop is agreed before the end, the run that resumes does it."""
        step, every = self.journal.position.step, self.config.train.evaluate_every_steps
        due = self._steps_left == 0 or (every and step % every == 0)
        if not due or step == self._evaluated_step:
            return
        self.journal.flush()
        self.journal.check_finite()
        if self._steps_left == 0:
            self.journal.check_end()
        self.step.engine.eval()
        figures = self.evaluate()
        self.step.engine.train()
        if figures is None:
            return
        self.journal.check_figures(figures, at_end=self._steps_left == 0)
        self._evaluated_step = step
        self.journal.write_evaluation(figures, f"held out, step {step:,}: {describe_evaluation(figures)}")

    def _save(self, wait: bool = False) -> None:
        if self._steps_left == 0:
            self.journal.check_end()
        self.journal.save(wait, data=self.data_state(self.journal.position.step))
        self._check_grace_time()

    def _check_grace_time(self) -> None:
        """After the first checkpoint of this start: is there time to save between a request to stop and the kill?

        With saving in the background, the checkpoint of another step may be under way when the request comes.
        """
        position, save = self.journal.position, self.journal.last_save
        if self._grace_time_checked or save is None or not position.step:
            return
        self._grace_time_checked = True
        micro_batch_s = position.trained_s / position.step / self.accumulation
        checkpoints, save_s = "a checkpoint", save.total_s
        if self.journal.saving.background is not None:
            checkpoints, save_s = "two checkpoints, one of them perhaps under way", 2 * save_s
        if micro_batch_s + save_s > self.config.train.grace_time_s:
            self.journal.say(
                f"warning: a micro-batch ({micro_batch_s:.1f} s) and {checkpoints} ({save_s:.1f} s) take longer than "
                f"grace_time_s={self.config.train.grace_time_s:g}: a run that is asked to stop may be killed before it "
                "is saved. Lower micro_batch_sentences, write to a faster disk, or have the job signalled earlier "
                "(sbatch --signal=B:USR1@SECONDS) and raise grace_time_s"
            )


def finish_row(row: dict[str, Any], sums: Mapping[str, Sequence[float]], ranks: int) -> dict[str, Any]:
    """A row of means: `row` with counts (`masked_pieces`, `permuted_spans`, `sentences`, `mlm_pieces` where MLM is on),
    and sums over all ranks.
    """
    counts = {"tbo": row["masked_pieces"], "spo": row["permuted_spans"], "cspo": row["sentences"]}
    counts["mlm"] = row.get("mlm_pieces", 0)
    add_losses(row, sums, counts, row.pop("weights"))
    if "tbo/correct" in sums:
        row["tbo_accuracy"] = ratio(sums["tbo/correct"][0], counts["tbo"])
    if "mlm/correct" in sums:
        row["mlm_accuracy"] = ratio(sums["mlm/correct"][0], counts["mlm"])
    if "spo/correct" in sums:
        row["spo_accuracy"] = ratio(sums["spo/correct"][0], counts["spo"])
        for order, (correct, count) in enumerate(zip(sums["spo/class_correct"], sums["spo/class_count"], strict=True)):
            row[f"spo_accuracy_order{order}"] = ratio(correct, count)
    if "cspo/correct" in sums:
        ranked = sums["cspo/ranked"][0]  # queries that had a negative
        row["contrastive_top1"] = ratio(sums["cspo/correct"][0], ranked)
        row["positive_similarity"] = ratio(sums["cspo/positive"][0], counts["cspo"])
        row["negative_similarity"] = ratio(sums["cspo/negative"][0], ranked)
        row["embedding_spread"] = ratio(sums["cspo/spread"][0], counts["cspo"])
    row["data_wait_share"] = sums["data_wait_s"][0] / ranks / row["step_s"]
    return row


def describe_evaluation(figures: dict[str, float]) -> str:
    """The figures of an evaluation that show whether anything was learned, on one line."""
    parts = []
    for label, name, against_label, against in (
        ("tbo", "heldout/tbo_nats", "count model", "heldout/tbo_count_model_nats"),
        ("spo", "heldout/spo_nats", "entropy", "heldout/spo_entropy"),
    ):
        if name in figures:
            parts.append(f"{label} {figures[name]:.3f} nats ({against_label} {figures[against]:.3f})")
    if "heldout/mlm_nats" in figures:
        parts.append(f"mlm {figures['heldout/mlm_nats']:.3f} nats, {figures['heldout/mlm_accuracy']:.1%} right")
    if "heldout/top1_same_layout" in figures:
        parts.append(
            f"top-1 {figures['heldout/top1_same_layout']:.1%} of the same layout "
            f"(chance {figures['heldout/top1_same_layout_chance']:.1%}, "
            f"control {figures['heldout/top1_same_layout_control']:.1%})"
        )
    return ", ".join(parts) or "nothing to report"
