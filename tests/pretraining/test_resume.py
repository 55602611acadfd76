"""Which checkpoints a pre-training run may continue from, and that its queues come back with its weights."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from kept_state import save_states

from spe_dist.config.loading import resolve, to_yaml
from spe_dist.data.batches.order import Order
from spe_dist.distributed.checkpoint import Checkpoints
from spe_dist.distributed.context import RankContext
from spe_dist.errors import CheckpointError
from spe_dist.moco.fragments import Fragment
from spe_dist.pretraining.resume import choose_start, restore

CONTEXT = RankContext(rank=0, ranks=1, local_rank=0, device=torch.device("cpu"), control=None)
ORDER = Order(np.array([50]), 3, 4, 8, "abc")
RUN = {"ranks": 2, "precision": "bfloat16", "zero_stage": 2}


@pytest.fixture
def start(tmp_path):
    """start(state={}, order=ORDER, **settings): begin at a checkpoint of step 6 with this state."""

    def start(state=None, order=ORDER, **given):
        checkpoints = Checkpoints(tmp_path / "run" / "checkpoints", 1, CONTEXT)
        saved = {"step": 6, **RUN, "data": ORDER.state_dict(6), **(state or {})}

        def write(folder):
            (folder / "config.yaml").write_text(to_yaml(resolve([])))

        checkpoints.save(6, saved, write)
        config = resolve([{"output": str(tmp_path / "run"), "resume": "auto", **given}])
        return choose_start(config, CONTEXT, checkpoints, order)

    return start


def test_a_checkpoint_of_the_same_run_is_taken_and_what_changed_is_noted(start):
    point = start(learning_rate=1.0)
    assert point.checkpoint is not None and point.state["data"] == ORDER.state_dict(6)
    assert point.notes[-1] == "settings changed since step_00000006: learning_rate=1.0 (was 0.0001)"
    assert len(start().notes) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"state": {"data": ORDER.state_dict(5)}}, "is inconsistent: step 6, but data of 5 steps"),
        ({"order": Order(np.array([50]), 4, 4, 8, "abc")}, "seed = 3, this run has 4"),
        ({"order": Order(np.array([50]), 3, 4, 8, "abd")}, "manifest = abc, this run has abd"),
        ({"normalize": False}, "normalize=True, this run has False"),
        ({"span_size": 8}, "span_size=300, this run has 8"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(start, given, message):
    with pytest.raises(CheckpointError, match=message):
        start(**given)


def test_engine_and_queues_are_restored_from_the_same_checkpoint(tmp_path):
    kept = SimpleNamespace(fragments=lambda: [Fragment("weights/a", (3,), 0, torch.ones(3))], values=lambda: {"a": 1})
    save_states(tmp_path, CONTEXT, kept)
    seen = []
    engine = SimpleNamespace(load=lambda source: seen.append(("engine", source)), context=CONTEXT)
    moco = SimpleNamespace(load=lambda source: seen.append(("moco", source)))
    restore(tmp_path, engine, moco)
    assert [name for name, _ in seen] == ["engine", "moco"]
    assert all(source.folder == tmp_path / "tensors" and source.values == {"a": 1} for _, source in seen)
    restore(tmp_path, engine, None)
    assert [name for name, _ in seen[2:]] == ["engine"]
