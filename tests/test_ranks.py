"""The tests' own tool for real ranks keeps its promises."""

from __future__ import annotations

import os
import time

import pytest
import torch

pytestmark = pytest.mark.distributed


def test_ranks_meet_and_return_their_results_in_rank_order(run_ranks):
    offset = 10

    def sum_over_ranks(factor: int) -> tuple[int, torch.Tensor]:
        torch.distributed.init_process_group("gloo")
        value = torch.tensor([float(os.environ["RANK"]) * factor + offset])
        torch.distributed.all_reduce(value)
        return torch.distributed.get_rank(), value

    results = run_ranks(sum_over_ranks, 3, 2)
    assert [rank for rank, _ in results] == [0, 1, 2]
    assert all(value.item() == 36.0 for _, value in results)


def test_one_rank_that_raises_ends_the_others_and_shows_its_traceback(run_ranks):
    def fail_on_rank_one() -> None:
        if os.environ["RANK"] == "1":
            raise ValueError("rank one gives up")
        time.sleep(60)

    start = time.monotonic()
    with pytest.raises(AssertionError, match="rank one gives up"):
        run_ranks(fail_on_rank_one, 2)
    assert time.monotonic() - start < 50


def test_ranks_that_hang_are_ended_with_their_stacks(run_ranks):
    def wait_for_nobody() -> None:
        time.sleep(60)

    with pytest.raises(AssertionError, match="wait_for_nobody"):
        run_ranks(wait_for_nobody, 2, timeout_s=6.0)
