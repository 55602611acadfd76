"""A state is looked at before it is saved, and what is found is kept for the user."""

import json
import math

import pytest
import torch

from spe_dist.distributed.context import RankContext
from spe_dist.errors import UnstableTraining
from spe_dist.training.health.failures import FailureLog, RecentBatches
from spe_dist.training.health.finite import first_non_finite
from spe_dist.utils.run_files import FAILURES_FILE

ALONE = RankContext(rank=0, ranks=1, local_rank=0, device=torch.device("cpu"), control=None)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_first_tensor_that_is_not_finite_is_named(value):
    joined = torch.ones(100)
    bad = torch.zeros(3, 4, dtype=torch.bfloat16)
    bad[2, 1] = value
    state = [("a", joined[:40]), ("b", joined[40:]), ("ids", torch.tensor([1])), ("none", torch.empty(0))]
    assert first_non_finite(state, ALONE) is None
    assert first_non_finite([*state, ("c", bad), ("d", bad.t())], ALONE) == "c"
    joined[41] = value
    assert first_non_finite([*state, ("c", bad)], ALONE) == "b"


def test_numbers_far_too_large_are_as_bad_as_infinities():
    state = [("large", torch.tensor([9e17, -9e17])), ("positive", torch.full((10,), 9e17))]
    assert first_non_finite(state, ALONE) is None
    for value in (2e18, -2e18):
        assert first_non_finite([*state, ("too large", torch.tensor([0.0, value]))], ALONE) == "too large"
    assert first_non_finite([("cancelling", torch.tensor([2e18, -2e18]))], ALONE) == "cancelling"
    assert first_non_finite([("both", torch.tensor([math.inf, -math.inf]))], ALONE) == "both"


def held(rank):
    from spe_dist.distributed.context import start_ranks
    from spe_dist.distributed.launch import detect

    context = start_ranks(detect(), 60.0)
    tensor = torch.tensor([1.0, math.nan if context.rank == rank else 2.0])
    return first_non_finite([(f"of rank {context.rank}", tensor)], context)


@pytest.mark.distributed
def test_all_ranks_learn_what_one_of_them_holds(run_ranks):
    assert run_ranks(held, 2, 1) == ["of rank 1"] * 2


def test_a_failure_is_written_with_the_sentences_of_its_step(tmp_path):
    batches = RecentBatches(3)
    for step in range(1, 6):
        batches.add(step, [10 * step, 10 * step + 1])
    assert batches.of(5) == [50, 51] and batches.of(2) == []
    batches.add(4, [40, 41])  # trained again after a roll-back
    assert batches.of(4) == [40, 41]
    log = FailureLog(tmp_path, ALONE)
    row = log.write(UnstableTraining("loss", 4, "the loss is nan", "Lower it"), batches.of(4), None, action="ended")
    assert [json.loads(line) for line in (tmp_path / FAILURES_FILE).read_text().splitlines()] == [row]
    assert row == {
        "step": 4,
        "kind": "loss",
        "why": "the loss is nan",
        "first_bad_parameter": None,
        "sentence_ids": [[40, 41]],
        "action": "ended",
    }
