"""The journal of a run whose output folder another start has taken over."""

from types import SimpleNamespace

import pytest
import torch

from spe_dist.distributed.checkpoint import Checkpoints
from spe_dist.distributed.context import RankContext
from spe_dist.distributed.fence import Fence
from spe_dist.errors import CheckpointError
from spe_dist.training.agreement import Agreement
from spe_dist.training.health.left_out import LeftOut
from spe_dist.training.journal import Journal, Position, Saving
from spe_dist.training.metrics import MetricLog, read_rows
from spe_dist.training.progress import ProgressLine
from spe_dist.training.terms import StepOutcome

CONTEXT = RankContext(rank=0, ranks=1, local_rank=0, device=torch.device("cpu"), control=None)


def make_journal(tmp_path, fence, context=CONTEXT):
    return Journal(
        settings=SimpleNamespace(log_every_steps=1, max_skipped_steps=20, rollback_on_spike=0.0, slow_rank_factor=0.0),
        engine=SimpleNamespace(grad_norm=lambda: 1.0, loss_scale=lambda: 1.0, precision="float32"),
        position=Position(),
        log=MetricLog(tmp_path, context, lambda row, sums, ranks: {**row, "loss": 1.0}),
        progress=ProgressLine(10, enabled=False),
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
