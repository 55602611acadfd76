"""The clock at the borders of a step's parts, and that watching changes nothing of the step."""

import time

import pytest
import torch
from small_steps import build_step, micro_batches, small_config, start

from spe_dist.benchmark.pretraining.phases import PHASES, REST, PhaseClock, WatchedStep


def test_an_inner_phase_takes_its_time_out_of_the_outer_one():
    clock = PhaseClock(torch.device("cpu"))
    clock.start()
    with clock.phase("query"):
        time.sleep(0.02)
        with clock.phase("keys"):
            time.sleep(0.05)
        time.sleep(0.02)
    spent = clock.stop()
    assert tuple(spent) == PHASES
    assert 0.04 <= spent["query"].seconds < 0.05 + spent["keys"].seconds - 0.05 + 0.04
    assert spent["keys"].seconds >= 0.05 and spent["data"].seconds == 0
    assert spent["query"].cpu_s < spent["query"].seconds  # it slept
    clock.start()
    assert sum(part.seconds for part in clock.stop().values()) < 0.02


def losses_and_phases(watched):
    config, context = small_config(dropout=0.1), start()
    step = build_step(config, context, stage=1, accumulation=2)
    clock = PhaseClock(context.device)
    if watched:
        WatchedStep(step, clock.phase)
    clock.start()
    sums = [step(number, 1e-2, micro_batches(config, context, number, 2)).sums for number in range(3)]
    spent = {name: part.seconds for name, part in clock.stop().items()}
    return [{name: value.tolist() for name, value in one.items()} for one in sums], spent


@pytest.mark.distributed
def test_a_watched_step_trains_the_same_and_its_parts_are_seen(run_ranks):
    [(plain, _)] = run_ranks(losses_and_phases, 1, False)
    [(watched, spent)] = run_ranks(losses_and_phases, 1, True)
    assert watched == plain
    assert spent.pop("data") == 0 and all(seconds > 0 for seconds in spent.values())
    assert spent[REST] < 0.5 * sum(spent.values())
