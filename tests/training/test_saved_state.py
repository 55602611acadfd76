"""The state of a checkpoint is of the kinds that a run writes, or the checkpoint is passed over."""

import copy
from dataclasses import asdict

import pytest
import torch

from spe_dist.data.batches.order import Order
from spe_dist.distributed.context import RankContext
from spe_dist.finetuning.loop import Best
from spe_dist.training.health.left_out import LeftOut
from spe_dist.training.journal import Position
from spe_dist.training.saved_state import PARTS, POSITION, RunCheckpoints, problem_of_state

ORDER = Order(torch.tensor([50]).numpy(), 3, 4, 8, "abc")
STATE = {
    **asdict(Position(step=3, applied_steps=3)),
    "data": ORDER.state_dict(3),
    "best": asdict(Best()),
    **LeftOut((1, 2), {7}, 4).state(),
    "checksums": {},
}


def test_what_runs_write_holds_and_every_value_is_looked_at():
    assert problem_of_state(STATE) is None
    assert asdict(Position()).keys() == POSITION.keys()
    for name, kinds in PARTS.items():
        assert STATE[name].keys() == kinds.keys()
    assert problem_of_state({name: value for name, value in STATE.items() if name not in PARTS}) is None


@pytest.mark.parametrize("value", [None, 1e30, -1, "3", True, [], {}, [[[]]], 10**30])
@pytest.mark.parametrize("where", ["step", "trained_s", "data.sentences_consumed", "best.epoch", "left_out.steps"])
def test_a_value_of_another_kind_is_named(where, value):
    state = copy.deepcopy(STATE)
    *parents, name = where.split(".")
    (state[parents[0]] if parents else state)[name] = value
    if (where, value) in (("left_out.steps", []), ("trained_s", 1e30), ("trained_s", 10**30)):
        assert problem_of_state(state) is None
    else:
        assert problem_of_state(state).startswith(f"{where} is ")


def test_a_missing_value_and_a_part_that_is_none_are_named():
    assert problem_of_state({**STATE, "data": None}) == "data is null"
    assert problem_of_state({name: value for name, value in STATE.items() if name != "step"}) == "step is missing"


def test_an_older_checkpoint_is_taken_where_the_state_of_the_newest_does_not_hold(tmp_path):
    context = RankContext(rank=0, ranks=1, local_rank=0, device=torch.device("cpu"), control=None)
    checkpoints = RunCheckpoints(tmp_path, 3, context)
    for step, state in ((1, STATE), (2, {**STATE, "applied_steps": None})):
        checkpoints.save(step, state, lambda folder: (folder / "weights").write_text("w"))
    path, passed_over = checkpoints.newest_valid()
    assert path.name == "step_00000001"
    assert passed_over == ["step_00000002: state.json: applied_steps is null, not a whole number"]


@pytest.mark.parametrize(
    "content", [b"", b"null", b"[1]", b"\xff\x00", b'{"a":' * 50_000, b'{"checksums": {}, "step": 1e999}', None]
)
def test_a_state_that_cannot_be_read_is_passed_over_in_one_line(tmp_path, content):
    context = RankContext(rank=0, ranks=1, local_rank=0, device=torch.device("cpu"), control=None)
    checkpoints = RunCheckpoints(tmp_path, 3, context)
    for step in (1, 2):
        checkpoints.save(step, STATE, lambda folder: (folder / "weights").write_text("w"))
    file = tmp_path / "step_00000002" / "state.json"
    file.unlink()
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    path, (passed_over,) = checkpoints.newest_valid()
    assert path.name == "step_00000001" and passed_over.startswith("step_00000002: ")
    assert "\n" not in passed_over and len(passed_over) < 400
