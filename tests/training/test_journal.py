"""The journal of a run whose output folder another start has taken over."""

import io
from types import SimpleNamespace

import pytest
import torch

from spe_dist.distributed.checkpoint import Checkpoints
from spe_dist.distributed.context import RankContext
from spe_dist.distributed.fence import Fence
from spe_dist.errors import CheckpointError
from spe_dist.training.agreement import Agreement
from spe_dist.training.health.left_out import LeftOut
from spe_dist.training.health.stragglers import STEPS
from spe_dist.training.journal import Journal, Position, Saving
from spe_dist.training.metrics import MetricLog, read_rows
from spe_dist.training.progress import ProgressLine
from spe_dist.training.terms import StepOutcome

CONTEXT = RankContext(rank=0, ranks=1, local_rank=0, device=torch.device("cpu"), control=None)


def make_journal(tmp_path, fence, context=CONTEXT, slow_rank_factor=0.0, stream=None):
    return Journal(
        settings=SimpleNamespace(
            log_every_steps=1, max_skipped_steps=20, rollback_on_spike=0.0, slow_rank_factor=slow_rank_factor
        ),
        engine=SimpleNamespace(grad_norm=lambda: 1.0, loss_scale=lambda: 1.0, precision="float32"),
        position=Position(),
        log=MetricLog(tmp_path, context, lambda row, sums, ranks: {**row, "loss": 1.0}),
        progress=ProgressLine(10, stream, enabled=stream is not None),
        saving=Saving(
            Checkpoints(tmp_path / "checkpoints", 2, context, fence), lambda copy: lambda folder, group: None, {}
        ),
        agreement=Agreement(context, SimpleNamespace(requested=False, reason=""), 0),
        state_pieces=lambda: [],
        left_out=LeftOut(),
    )


def test_a_start_that_lost_its_folder_adds_no_row_to_those_of_the_next(tmp_path):
    fence = Fence(tmp_path)
    journal = make_journal(tmp_path, fence)
    fence.claim()
    journal.add(StepOutcome(True, {}, {}), 0.1, {"sentences": 4}, {"pieces": 9.0})
    Fence(tmp_path).claim()
    with pytest.raises(CheckpointError, match="taken over"):
        journal.add(StepOutcome(True, {}, {}), 0.1, {"sentences": 4}, {"pieces": 9.0})
    with pytest.raises(CheckpointError, match="taken over"):
        journal.write_evaluation({"heldout/tbo_nats": 1.0}, "held out")
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [1]


class SlowContext(RankContext):
    """Whose sums wait for another rank so long that a new start takes the folder over."""

    def all_reduce_sum(self, tensor):
        Fence(self.control).claim()
        return tensor


def test_a_start_that_loses_its_folder_while_it_waits_for_other_ranks_adds_no_row_either(tmp_path):
    fence = Fence(tmp_path)
    context = SlowContext(rank=0, ranks=1, local_rank=0, device=torch.device("cpu"), control=tmp_path)
    journal = make_journal(tmp_path, fence, context)
    fence.claim()
    with pytest.raises(CheckpointError, match="taken over"):
        journal.add(StepOutcome(True, {}, {}), 0.1, {"sentences": 4}, {"pieces": 9.0})
    assert read_rows(tmp_path / "metrics.jsonl") == []


class TwoRanks(RankContext):
    """Rank 0 of two, whose partner takes 0.1501 s of its own in each step; `control` has the collectives by name."""

    def all_reduce_sum(self, tensor):
        self.control.append("sum")
        return tensor + torch.tensor([[*[0.0] * (tensor.shape[1] - 1), 0.1501]], dtype=tensor.dtype)

    def all_gather_object(self, value):
        self.control.append("gather")
        return [value, "node7"]

    def run_on_main(self, function):
        return function()


def test_who_is_slow_is_told_without_a_collective_which_the_other_ranks_may_not_join(tmp_path):
    """A rank's own clock decides whether it costs enough of a step, so one rank may find it and another not."""

    def collectives(step_s, own_s):
        calls, stream = [], io.StringIO()
        context = TwoRanks(rank=0, ranks=2, local_rank=0, device=torch.device("cpu"), control=calls)
        fence = Fence(tmp_path)
        fence.claim()
        journal = make_journal(tmp_path, fence, context, 1.5, stream)
        assert calls.pop() == "gather"
        for _ in range(STEPS):
            row = {"sentences": 4, "skipped_steps": 0}
            journal.add(StepOutcome(True, {}, {}, lambda: own_s), step_s, row, {"pieces": 9.0})
        return calls, stream.getvalue()

    found, told = collectives(1.0, 0.1)
    missed, silence = collectives(1.003, 0.1)
    assert "rank 1 on node7 takes 1.5 times" in told and "node7" not in silence
    assert found == missed == STEPS * ["sum"]
