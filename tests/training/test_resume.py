"""Where a run begins: in a free folder, at the newest whole checkpoint or at the one that is named."""

from __future__ import annotations

import pytest
import torch

from spe_dist.config.loading import resolve, to_yaml
from spe_dist.distributed.checkpoint import Checkpoints, list_checkpoints
from spe_dist.distributed.context import RankContext
from spe_dist.errors import CheckpointError
from spe_dist.training.journal import Position
from spe_dist.training.resume import changed_settings, check_same_run, choose_start
from spe_dist.training.run import Run

CONTEXT = RankContext(rank=0, ranks=1, local_rank=0, device=torch.device("cpu"), control=None)


@pytest.fixture
def run(tmp_path):
    """A run's folder with its settings and checkpoints of steps 1 and 2."""
    output = tmp_path / "run"
    checkpoints = Checkpoints(output / "checkpoints", 5, CONTEXT)
    for step in (1, 2):
        position = {"applied_steps": step - 1, "skipped_steps": 1, "skipped_in_a_row": 0, "trained_s": 2.5}
        checkpoints.save(step, {"step": step, **position}, lambda folder: (folder / "weights").write_text("w" * 9))
    (output / "config.yaml").write_text(to_yaml(resolve([{"output": str(output)}])))
    return output, checkpoints


def start(checkpoints, output, resume):
    return choose_start(resolve([{"output": str(output), "resume": str(resume)}]).train, CONTEXT, checkpoints)


def damage(checkpoints, step):
    (checkpoints.folder / f"step_{step:08d}" / "weights").write_text("damaged")


def test_a_new_run_begins_at_step_0_in_a_free_folder_only(run, tmp_path):
    output, checkpoints = run
    with pytest.raises(CheckpointError, match=rf"output={output} holds another run.*--resume auto"):
        start(checkpoints, output, "never")
    free = Checkpoints(tmp_path / "free" / "checkpoints", 5, CONTEXT)
    for resume, notes in (("never", 0), ("auto", 1)):
        point = start(free, tmp_path / "free", resume)
        assert point.checkpoint is None and point.position == Position() and len(point.notes) == notes


@pytest.mark.parametrize(("resume", "left"), [("step_00000001", 1), ("step_00000002", 2), ("auto", 2)])
def test_a_start_from_an_older_checkpoint_gives_up_the_newer_ones_once_the_folder_is_its_own(run, resume, left):
    """Else the next start by `--resume auto` would go on from one of them."""
    output, checkpoints = run
    config = resolve(
        [{"output": str(output), "resume": resume if resume == "auto" else str(checkpoints.folder / resume)}]
    )
    of_start = Run(config, CONTEXT)
    try:
        point = choose_start(config.train, CONTEXT, of_start.checkpoints)
        assert len(list_checkpoints(checkpoints.folder)) == 2
        assert any("trained again" in note for note in point.notes) == (left == 1)
        assert of_start.claim(point)
    finally:
        of_start.stop.close()
    assert len(list_checkpoints(checkpoints.folder)) == left
    assert choose_start(config.train, CONTEXT, checkpoints).position == point.position


def test_of_two_starts_at_the_same_time_the_first_ends_before_it_writes(run):
    output, checkpoints = run
    config = resolve([{"output": str(output), "resume": "auto"}])
    first, second = starts = [Run(config, CONTEXT) for _ in range(2)]
    try:
        point = choose_start(config.train, CONTEXT, checkpoints)
        assert first.claim(point) and second.claim(point)
        second.write_settings()
        with pytest.raises(CheckpointError, match="taken over"):
            first.write_settings()
    finally:
        for of_start in reversed(starts):
            of_start.stop.close()


def test_auto_takes_the_newest_whole_checkpoint_and_its_position(run):
    output, checkpoints = run
    point = start(checkpoints, output, "auto")
    assert point.checkpoint == checkpoints.folder / "step_00000002"
    assert point.position == Position(2, applied_steps=1, skipped_steps=1, skipped_in_a_row=0, trained_s=2.5)
    damage(checkpoints, 2)
    point = start(checkpoints, output, "auto")
    assert point.position.step == 1 and "step_00000002" in point.notes[0] and "step 1" in point.notes[1]
    damage(checkpoints, 1)
    with pytest.raises(CheckpointError, match=r"no checkpoint .* is whole .*step 0"):
        start(checkpoints, output, "auto")


def test_a_named_checkpoint_is_taken_where_it_is_whole(run, tmp_path):
    output, checkpoints = run
    first = checkpoints.folder / "step_00000001"
    assert start(checkpoints, output, first).checkpoint == first
    damage(checkpoints, 1)
    with pytest.raises(CheckpointError, match=r"resume=.*step_00000001: weights does not match its checksum; give"):
        start(checkpoints, output, first)


def test_a_checkpoint_of_elsewhere_is_continued_in_a_free_folder_only(run, tmp_path):
    _, checkpoints = run
    named = checkpoints.folder / "step_00000002"
    other = Checkpoints(tmp_path / "other" / "checkpoints", 5, CONTEXT)
    assert start(other, tmp_path / "other", named).position.step == 2
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").write_text(to_yaml(resolve([])))
    with pytest.raises(CheckpointError, match="holds another run"):
        start(other, tmp_path / "other", named)


@pytest.mark.parametrize(
    ("saved", "asked", "message"),
    [
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, "with b=2, this run has 3; resume with b=2, or"),
        ({"a": 1, "b": 2}, {"a": 0, "b": 3}, "with a=1, this run has 0"),
        ({"a": 1}, {"a": 1, "b": 3}, "with b=None, this run has 3"),
        ({"a": 1, "c": "x"}, {"a": 1, "c": "y"}, "with other c; resume with the same file, or"),
    ],
)
def test_the_first_value_that_differs_is_named(saved, asked, message, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        check_same_run(saved, asked, tmp_path, {"c": "the same file"})
    check_same_run({**saved, **asked}, asked, tmp_path)
    check_same_run({**asked, "more": 1}, asked, tmp_path)


def test_settings_that_changed_are_told_by_name(run, tmp_path):
    output, _ = run
    changed = changed_settings(output, resolve([{"output": "elsewhere", "dropout": 0.3}]))
    assert changed == {"dropout": (0.1, 0.3)}
    assert changed_settings(tmp_path / "nowhere", resolve([])) == {}
