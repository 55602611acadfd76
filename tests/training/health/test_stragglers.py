"""Which rank holds the others up: in a row, over ten steps, and in real ranks of which one is slow."""

import io
import time

import pytest
import torch
from small_runs import PRETRAINING, ask_to_stop, command_line

from spe_dist import pretrain
from spe_dist.cli.exits import STOPPED
from spe_dist.training.health.stragglers import STEPS, OwnWork, Stragglers, figures
from spe_dist.training.metrics import read_rows
from spe_dist.training.progress import ProgressLine


def test_a_row_has_the_slowest_rank_over_the_median_rank():
    assert figures([0.2, 0.2, 0.5, 0.1]) == {"slowest_rank": 2, "slowest_over_median": 2.5}
    assert figures([0.1, 0.3]) == {"slowest_rank": 1, "slowest_over_median": pytest.approx(3.0)}  # of two: the faster
    assert figures([0.0, 0.0])["slowest_over_median"] == 1.0


def slow_steps(count, own_s, step_s=1.0):
    return [(own_s, step_s)] * count


def test_a_rank_is_named_once_it_has_been_slow_for_ten_steps_and_again_after_it_was_not():
    stragglers = Stragglers(1.5)
    assert stragglers.look(slow_steps(STEPS - 1, [0.2, 0.4, 0.2])) is None
    found = stragglers.look(slow_steps(1, [0.2, 0.4, 0.2]))
    assert (found.rank, found.times) == (1, 2.0) and "2.0 times as long as the median rank" in str(found)
    assert stragglers.look(slow_steps(3, [0.2, 0.4, 0.2])) is None and stragglers.slow.rank == 1
    assert stragglers.look(slow_steps(STEPS, [0.2, 0.2, 0.2])) is None and stragglers.slow is None
    assert stragglers.look(slow_steps(STEPS, [0.2, 0.2, 0.5])).rank == 2
    assert stragglers.look(slow_steps(STEPS, [0.5, 0.2, 0.2])).rank == 0


@pytest.mark.parametrize(
    ("factor", "own_s", "step_s"),
    [(1.5, [0.2, 0.29], 1.0), (0.0, [0.2, 2.0], 1.0), (1.5, [0.001, 0.04], 1.0), (1.5, [0.0, 0.0], 1.0)],
    ids=["below the factor", "switched off", "of no weight in the step", "nothing measured"],
)
def test_nobody_is_named(factor, own_s, step_s):
    stragglers = Stragglers(factor)
    assert stragglers.look(slow_steps(2 * STEPS, own_s, step_s)) is None and stragglers.slow is None


def test_a_slow_step_now_and_then_names_nobody():
    stragglers = Stragglers(1.5)
    for number in range(4 * STEPS):
        assert stragglers.look(slow_steps(1, [0.2, 0.9 if number % 4 == 0 else 0.2])) is None


def test_the_progress_line_shows_who_is_slow():
    stragglers, stream = Stragglers(1.5), io.StringIO()
    stragglers.look(slow_steps(STEPS, [0.2, 0.5]))
    row = {"step": 5, "loss": 1.0, "sentences": 1, "skipped_steps": 0}
    ProgressLine(5, stream).show(row, 10.0, 0.0, stragglers.slow)
    assert "rank 1 2.5x the median" in stream.getvalue()


def test_the_clock_counts_what_is_inside_it_since_it_was_read():
    own_work = OwnWork(torch.device("cpu"))
    with own_work:
        time.sleep(0.02)
    time.sleep(0.05)
    with own_work:
        time.sleep(0.02)
    assert 0.04 <= own_work.take()() < 0.09
    assert own_work.take()() == 0.0


def slow_training(argv):
    """Trains with a last rank whose forward passes take 0.1 s longer."""
    from spe_dist.distributed.engine import TrainingEngine

    forward = TrainingEngine.__call__

    def slowed(engine, *inputs):
        if engine.context.rank == 1:
            time.sleep(0.1)
        return forward(engine, *inputs)

    TrainingEngine.__call__ = slowed
    ask_to_stop(after=4 * 25)
    return pretrain.main(argv)


@pytest.mark.distributed
@pytest.mark.slow
def test_of_two_real_ranks_the_slow_one_is_in_every_row_and_in_a_warning(run_ranks, demo_shards, tmp_path, capfd):
    settings = {**PRETRAINING, "steps": 1_000, "micro_batch_sentences": 2, "evaluate_sentences": 0}
    argv = command_line({**settings, "shards": demo_shards, "output": tmp_path / "run"})
    assert run_ranks(slow_training, 2, argv) == [STOPPED, 0]
    rows = read_rows(tmp_path / "run" / "metrics.jsonl", "train")[1:]
    assert len(rows) >= 20
    share = sum(row["slowest_rank"] == 1 and row["slowest_over_median"] > 1.5 for row in rows) / len(rows)
    assert share > 0.9
    out = capfd.readouterr().out
    [line] = [line for line in out.splitlines() if line.startswith("warning: rank")]
    assert line.startswith("warning: rank 1 on ") and "all others wait for it" in line
