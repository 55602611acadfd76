"""The loop's decisions, with a fine-tuning step that only pretends: rates, the best epoch, early stopping."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from spe_dist.config.finetuning import FinetuneConfig
from spe_dist.config.loading import resolve
from spe_dist.distributed.checkpoint import Checkpoints, list_checkpoints, read_state
from spe_dist.distributed.context import RankContext
from spe_dist.finetuning.learning_rates import RateGroups, uncorrected_factor
from spe_dist.finetuning.loop import Best, Finetuner, finish_row
from spe_dist.training.agreement import Agreement
from spe_dist.training.health.left_out import LeftOut
from spe_dist.training.journal import Journal, Position, Saving
from spe_dist.training.metrics import MetricLog, read_rows
from spe_dist.training.progress import ProgressLine
from spe_dist.training.rates.schedule import Schedule
from spe_dist.training.terms import StepOutcome

CONTEXT = RankContext(rank=0, ranks=1, local_rank=0, device=torch.device("cpu"), control=None)
STEPS_PER_EPOCH = 2


class PretendedStep:
    """Applies every step but those of `skipped`, and keeps the rates that it was called with."""

    context, own_work = CONTEXT, nullcontext()

    def __init__(self, skipped=()):
        self.skipped, self.rates = set(skipped), []
        self.engine = SimpleNamespace(
            train=lambda: None, grad_norm=lambda: 1.0, loss_scale=lambda: 1.0, precision="float32"
        )

    def __call__(self, step, rates, batch, gold_entities):
        self.rates.append(list(rates))
        sums = {
            f"{name}/{part}": torch.tensor([float(value)], dtype=torch.float64)
            for value, name in enumerate(("detection", "typing", "relation"), start=1)
            for part in ("loss", "correct")
        }
        return StepOutcome(step not in self.skipped, {"detection": 1, "typing": 2, "relation": 4}, sums)


def recover(failure):
    raise failure


def scores_of(value):
    """Scores as the loop reads them: `value` is what epochs are compared by."""
    counts = SimpleNamespace(precision=value, recall=value, f1=value)
    f1s = dict.fromkeys(("entity", "relation", "ent_rel"), value)
    return SimpleNamespace(exact_f1_sum=value, f1s=f1s, measured_f1s=f1s, total=lambda name: counts)


@pytest.fixture
def run(tmp_path):
    """run(step, scores by epoch, warmup_steps=0, ...) -> (finished, trainer, epochs whose model was kept)."""

    def run(step, scores, warmup_steps=0, epochs=None, position=None, best=None, dev=True, **given):
        epochs = epochs or len(scores)
        config = resolve([{"train": "t.json", "dev": "d.json" if dev else None, **given}], FinetuneConfig)
        position = position or Position()
        agreement = Agreement(CONTEXT, SimpleNamespace(requested=False, reason=""), 0.0)
        journal = Journal(
            settings=config.train,
            engine=step.engine,
            position=position,
            log=MetricLog(tmp_path, CONTEXT, finish_row, position.step),
            progress=ProgressLine(epochs * STEPS_PER_EPOCH),
            saving=Saving(
                Checkpoints(tmp_path / "checkpoints", 10, CONTEXT),
                lambda copy: lambda folder, group: (folder / "weights").write_text("w"),
                {},
            ),
            agreement=agreement,
            state_pieces=lambda: [],
            left_out=LeftOut(),
        )
        kept = []
        trainer = Finetuner(
            config=config,
            step=step,
            rates=RateGroups([], (3.0, 5.0)),
            schedule=Schedule(1.0, warmup_steps, epochs * STEPS_PER_EPOCH),
            data=SimpleNamespace(
                epochs=epochs,
                steps_per_epoch=STEPS_PER_EPOCH,
                total_steps=epochs * STEPS_PER_EPOCH,
                batch=lambda step, rank, ranks: (SimpleNamespace(n_tokens=10), torch.tensor([True, False]), 2),
                sentence_ids=lambda step, rank, ranks: [2 * step, 2 * step + 1],
            ),
            journal=journal,
            best=best or Best(),
            evaluate=lambda: scores_of(scores[trainer.epoch - 1]) if dev else None,
            keep_model=lambda epoch, scores: kept.append(epoch),
            recover=recover,
        )
        return trainer.run(), trainer, kept

    return run


def test_the_best_epoch_counts_those_after_it_but_not_while_the_rates_rise():
    best = Best().after(1, 0.5, warming_up=True)
    assert best == Best(epoch=1, score=0.5, evaluated_epoch=1, worse_evaluations=0)
    best = best.after(2, 0.4, warming_up=True).after(3, 0.5, warming_up=True)
    assert best == Best(epoch=1, score=0.5, evaluated_epoch=3, worse_evaluations=0)
    best = best.after(4, 0.4, warming_up=False).after(5, 0.5, warming_up=False)
    assert best == Best(epoch=1, score=0.5, evaluated_epoch=5, worse_evaluations=2)
    assert best.after(6, 0.6, warming_up=False) == Best(epoch=6, score=0.6, evaluated_epoch=6, worse_evaluations=0)


def test_evaluations_of_the_warm_up_are_no_part_of_the_patience(run):
    falling = [0.5, 0.4, 0.3, 0.2, 0.1, 0.1, 0.1, 0.1]
    finished, trainer, kept = run(PretendedStep(), falling, patience=2)
    assert finished and kept == [1] and trainer.epoch == 3
    finished, trainer, kept = run(PretendedStep(), falling, patience=2, warmup_steps=3 * STEPS_PER_EPOCH + 1)
    assert finished and kept == [1] and trainer.epoch == 5  # the warm-up ends within the fourth epoch
    finished, trainer, _ = run(PretendedStep(), falling, patience=0)
    assert finished and trainer.epoch == len(falling)


def test_the_model_of_each_better_epoch_is_kept(run, tmp_path):
    _, trainer, kept = run(PretendedStep(), [0.2, 0.2, 0.5, 0.4, 0.6], patience=9)
    assert kept == [1, 3, 5] and trainer.best.epoch == 5
    rows = read_rows(tmp_path / "metrics.jsonl", "evaluation")
    assert [(row["epoch"], row["dev/entity_f1"]) for row in rows] == [(1, 0.2), (2, 0.2), (3, 0.5), (4, 0.4), (5, 0.6)]


def test_without_dev_the_last_epoch_is_kept_and_nothing_stops_early(run):
    finished, trainer, kept = run(PretendedStep(), [], epochs=5, dev=False, patience=1)
    assert finished and kept == [1, 2, 3, 4, 5] and trainer.best.epoch == 5


def test_evaluations_come_every_n_epochs_and_after_the_last(run):
    _, trainer, kept = run(PretendedStep(), [0.1, 0.2, 0.3, 0.4, 0.5], evaluate_every_epochs=2, patience=9)
    assert kept == [2, 4, 5] and trainer.best.evaluated_epoch == 5


@pytest.mark.parametrize("corrected", [True, False])
def test_skipped_steps_move_neither_the_schedule_nor_the_moments_correction(run, corrected):
    step = PretendedStep(skipped={1, 2})
    _, trainer, _ = run(step, [0.1] * 4, warmup_steps=2, patience=9, adam_bias_correction=corrected)
    applied = [0, 1, 1, 1, 2, 3, 4, 5]
    factors = [trainer.schedule.rate(n) * uncorrected_factor(n, trainer.config.optimizer) for n in applied]
    assert factors[0] == pytest.approx(0.5 * (1.0 if corrected else 0.1 / 0.001**0.5))
    for rates, factor in zip(step.rates, factors, strict=True):
        assert rates == pytest.approx([3.0 * factor, 5.0 * factor])
    assert trainer.journal.position.skipped_steps == 2


def test_skipped_steps_keep_the_warm_up_open(run):
    """The warm-up is one of applied steps: where some were skipped, later evaluations are still of it."""
    falling = [0.5, 0.4, 0.3, 0.2, 0.1]
    _, trainer, _ = run(PretendedStep(skipped={0, 1}), falling, warmup_steps=3, patience=1)
    assert trainer.epoch == 3  # 4 applied steps; after the second epoch there are 2


def test_a_resumed_run_goes_on_from_its_best_epoch(run):
    position = Position(step=4, applied_steps=4)
    best = Best(epoch=1, score=0.5, evaluated_epoch=2, worse_evaluations=1)
    finished, trainer, kept = run(PretendedStep(), [0.0, 0.0, 0.4, 0.4, 0.9], position=position, best=best, patience=2)
    assert finished and kept == [] and trainer.best == replace(best, evaluated_epoch=3, worse_evaluations=2)


def test_checkpoints_come_every_n_epochs_and_hold_the_best(run, tmp_path):
    run(PretendedStep(), [0.1, 0.3, 0.2, 0.4, 0.5], checkpoint_every_epochs=2, patience=9)
    found = list_checkpoints(tmp_path / "checkpoints")
    assert [path.name for path in found] == ["step_00000008", "step_00000004"]
    assert read_state(found[1])["best"] == {"epoch": 2, "score": 0.3, "evaluated_epoch": 2, "worse_evaluations": 0}


def test_rows_hold_means_over_each_losses_own_count(run, tmp_path):
    run(PretendedStep(), [0.1], log_every_steps=1)
    row = read_rows(tmp_path / "metrics.jsonl", "train")[0]
    assert (row["detection_loss"], row["typing_loss"], row["relation_loss"]) == (1.0, 1.0, 0.75)
    assert row["loss"] == pytest.approx(2.75) and row["gold_sentences"] == 0.5
    assert (row["typing_examples"], row["relation_accuracy"]) == (2, 0.75)
    settings = resolve([{}], FinetuneConfig).optimizer
    assert row["learning_rate"] == settings.learning_rate and row["head_learning_rate"] == settings.head_learning_rate
