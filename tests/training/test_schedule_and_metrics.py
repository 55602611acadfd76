import json
import math

import pytest
import torch

from spe_dist.benchmark.launches import LaunchCounter
from spe_dist.config.pretraining import OptimizerConfig
from spe_dist.distributed.context import RankContext
from spe_dist.pretraining.loop import finish_row
from spe_dist.training.journal import Position
from spe_dist.training.metrics import MetricLog, read_rows
from spe_dist.training.progress import Pace, duration
from spe_dist.training.rates.schedule import Schedule
from spe_dist.training.terms import seed_dropout


def test_learning_rate_rises_to_the_peak_and_falls_to_zero_after_the_last_step():
    rates = [Schedule(peak=1.0, warmup_steps=4, total_steps=10).rate(i) for i in range(11)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0.0])
    assert Schedule(peak=1.0, warmup_steps=0, total_steps=10).rate(0) == 1.0


def test_warmup_is_a_number_of_steps_or_a_share():
    assert Schedule.of(OptimizerConfig(warmup_steps=18_000), 40_000, 1.0).warmup_steps == 18_000
    schedule = Schedule.of(OptimizerConfig(warmup_fraction=0.1), 40_000, 1.0)
    assert schedule == Schedule(1.0, 4_000, 40_000)
    assert schedule.is_warming_up(3_999) and not schedule.is_warming_up(4_000)


def test_position_counts_skips_in_a_row():
    position = Position()
    for applied in (True, False, False, True, False):
        position = position.after(applied, 1.0)
    assert (position.step, position.applied_steps, position.skipped_steps, position.skipped_in_a_row) == (5, 2, 3, 1)


def test_dropout_depends_on_seed_step_and_rank_only():
    def draw(*key):
        seed_dropout(*key)
        return torch.rand(4).tolist()

    assert draw(1, 2, 3) == draw(1, 2, 3)
    assert len({tuple(draw(*key)) for key in [(1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4)]}) == 4


def test_durations_read_well():
    assert [duration(s) for s in (0, 59, 61, 3600, 7384)] == ["0s", "59s", "1m01s", "1h00m", "2h03m"]


def test_time_left_follows_recent_steps_and_spreads_what_comes_between_them(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    pace = Pace()

    def steps(count, seconds, after=0.0):
        for _ in range(count):
            now[0] += seconds
            pace.step_ended(seconds)
        now[0] += after

    steps(1, 300.0, after=60.0)  # compiles, then a trial checkpoint
    assert pace.seconds_for(10) == 3000.0
    steps(11, 2.0)
    assert pace.seconds_for(10) == pytest.approx(20.0)
    steps(89, 2.0, after=50.0)  # an evaluation
    steps(1, 2.0)
    assert pace.seconds_for(1000) == pytest.approx(1000 * (2.0 + 50.0 / 100))
    steps(400, 1.0)  # the machine is free now
    assert pace.seconds_for(1000) == pytest.approx(1000 * (1.0 + 50.0 / 500))


@pytest.fixture
def context():
    return RankContext(rank=0, ranks=1, local_rank=0, device=torch.device("cpu"), control=None)


def add_row(log, step, loss=3.0, **further):
    row = {
        "kind": "train",
        "step": step,
        "sentences": 4,
        "masked_pieces": 2,
        "permuted_spans": 0,
        "step_s": 0.5,
        "learning_rate": 0.1,
        "weights": {"tbo": 0.5, "spo": 1.0, "cspo": 0.3},
    }
    sums = {
        name: torch.tensor([value], dtype=torch.float64)
        for name, value in {
            "tbo/loss": loss,
            "tbo/correct": 1,
            "cspo/loss": 8,
            "cspo/correct": 1,
            "cspo/ranked": 2,
            "cspo/positive": 2,
            "cspo/negative": 1,
            "cspo/spread": 4,
        }.items()
    }
    log.add({**row, **further}, sums, {"pieces": 100.0, "data_wait_s": 0.1, "peak_memory_gib": 1.0})


def test_rows_are_means_over_global_counts(tmp_path, context):
    log = MetricLog(tmp_path, context, finish_row)
    add_row(log, 1)
    log.flush()
    row = read_rows(log.path)[0]
    assert (row["tbo_loss"], row["cspo_loss"], row["tbo_accuracy"], row["contrastive_top1"]) == (1.5, 2.0, 0.5, 0.5)
    assert row["loss"] == pytest.approx(0.5 * 1.5 + 0.3 * 2.0)
    assert (row["pieces_per_s"], row["data_wait_share"]) == (200.0, 0.2)
    assert row["peak_memory_gib"] == 1.0
    assert "weights" not in row and "spo_loss" not in row


def test_accuracies_of_the_orders_are_shares_of_each_order():
    row = {"masked_pieces": 0, "permuted_spans": 10, "sentences": 5, "step_s": 2.0}
    sums = {
        "spo/loss": [5.0],
        "spo/correct": [4.0],
        "spo/class_correct": [1.0, 3.0, 0.0],
        "spo/class_count": [2.0, 8.0, 0.0],
        "data_wait_s": [1.0],
    }
    row = finish_row({**row, "weights": {"tbo": 9.0, "spo": 3.0, "cspo": 7.0}}, sums, ranks=2)
    assert (row["spo_loss"], row["loss"], row["spo_accuracy"]) == (0.5, 1.5, 0.4)
    assert (row["spo_accuracy_order0"], row["spo_accuracy_order1"]) == (0.5, 0.375)
    assert math.isnan(row["spo_accuracy_order2"]) and row["data_wait_share"] == 0.25


def test_figures_on_the_device_are_read_when_rows_are_written(tmp_path, context):
    """The last step was skipped: its norm is infinite, and a number already."""
    log = MetricLog(tmp_path, context, finish_row)
    with LaunchCounter("cpu") as counter:
        for step, norm in enumerate((torch.tensor([3.0]), torch.tensor(4.0, dtype=torch.float64), math.inf), start=1):
            add_row(log, step, grad_norm=norm)
    assert not any(name in ("_local_scalar_dense", "item") for _, name in counter.waits)
    assert [row["grad_norm"] for row in log.flush()] == [3.0, 4.0, math.inf]
    assert [row["grad_norm"] for row in read_rows(log.path)] == [3.0, 4.0, None]


def test_rows_of_a_part_that_is_trained_again_are_replaced(tmp_path, context):
    log = MetricLog(tmp_path, context, finish_row)
    for step in (1, 2, 3):
        add_row(log, step)
    log.flush()
    log.close()
    with log.path.open("a") as file:
        file.write('{"step": 4, "cut')
    log = MetricLog(tmp_path, context, finish_row, resume_step=2)
    add_row(log, 3, loss=30.0)
    log.flush()
    assert [(row["step"], row["tbo_loss"]) for row in read_rows(log.path)] == [(1, 1.5), (2, 1.5), (3, 15.0)]


def test_an_evaluation_that_is_made_again_is_replaced(tmp_path, context):
    log = MetricLog(tmp_path, context, finish_row)
    for epoch, step in ((1, 2), (2, 4)):
        log.write({"kind": "evaluation", "step": step, "epoch": epoch, "dev/f1": 0.5})
    log.close()
    MetricLog(tmp_path, context, finish_row, resume_step=4, repeated=lambda row: row["epoch"] > 1).close()
    assert [row["epoch"] for row in read_rows(log.path, "evaluation")] == [1]


def test_numbers_that_json_cannot_hold_become_null(tmp_path, context):
    log = MetricLog(tmp_path, context, finish_row)
    log.write({"kind": "train", "step": 1, "grad_norm": float("nan")})
    assert json.loads(log.path.read_text()) == {"kind": "train", "step": 1, "grad_norm": None}
