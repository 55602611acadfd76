"""Checkpoints that are written in a thread while training goes on."""

import errno
import os
import time
from pathlib import Path

import pytest
from small_steps import start

from spe_dist.distributed.checkpoint import Checkpoints, list_checkpoints, read_state
from spe_dist.errors import CheckpointError
from spe_dist.training.agreement import Agreement
from spe_dist.training.background_save import BackgroundSave

pytestmark = pytest.mark.distributed

WRITING_S = 0.5


def slow(context, text):
    """A writer that takes its time, and meets the other ranks in its thread's group as real ones do."""
    import torch.distributed as dist

    def write(folder, group):
        time.sleep(WRITING_S * (1 + context.rank))
        dist.barrier(group=group)
        (folder / f"part{context.rank}").write_text(text)

    return write


class Quiet:
    requested, reason = False, ""


def save_and_train(folder):
    context = start()
    checkpoints = Checkpoints(folder, 3, context)
    background = BackgroundSave(checkpoints, 60.0)
    agreement = Agreement(context, Quiet(), 0.0, background)
    began = time.monotonic()
    background.start(7, {"step": 7}, slow(context, "seven"), began)
    assert background.step == 7 and time.monotonic() - began < WRITING_S / 2
    steps = 0
    while True:  # training, with collectives of its own
        steps += 1
        assert context.sum_numbers([steps]) == [steps * context.ranks]
        agreement()
        if agreement.save_ended:
            break
        time.sleep(0.01)
    saved = background.end()
    assert background.step is None and background.wait() is None
    background.start(8, {"step": 8}, slow(context, "eight"), time.monotonic())
    waited = background.wait()
    problems = [checkpoints.problem_of(path) for path in list_checkpoints(folder)]
    return steps, saved, waited, problems


def test_training_goes_on_while_a_checkpoint_is_written_and_waits_where_it_must(run_ranks, tmp_path):
    for steps, saved, waited, problems in run_ranks(save_and_train, 2, tmp_path):
        assert steps > 5 and problems == [None, None]
        assert (saved.step, waited.step) == (7, 8) and saved.in_background
        assert saved.waited_s < WRITING_S / 2 < 2 * WRITING_S <= saved.total_s
        assert waited.waited_s >= WRITING_S
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_00000008", "step_00000007"]
    assert read_state(tmp_path / "step_00000008")["step"] == 8


def fail(folder, where):
    context = start()
    checkpoints = Checkpoints(folder, 3, context)
    checkpoints.save(1, {"step": 1}, lambda path: (path / f"part{context.rank}").write_text("whole"))

    def write(path, group):
        if where == "all ranks" or context.rank == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    background = BackgroundSave(checkpoints, 60.0)
    background.start(2, {"step": 2}, write, time.monotonic())
    began = time.monotonic()
    with pytest.raises(CheckpointError) as found:
        background.wait()
    return str(found.value), time.monotonic() - began


@pytest.mark.parametrize("where", ["all ranks", "one rank"])
def test_a_disk_that_becomes_full_in_the_background_ends_all_ranks_with_its_message(run_ranks, tmp_path, where):
    for message, seconds in run_ranks(fail, 2, tmp_path, where):
        assert "No space left on device" in message and "--resume auto from step_00000001" in message
        assert seconds < 30
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_00000001"]
    assert {file.name for file in Path(tmp_path / "step_00000001").iterdir()} == {"part0", "part1", "state.json"}
