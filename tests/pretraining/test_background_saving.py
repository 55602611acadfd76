"""Pre-training that goes on while its checkpoints are written: killed meanwhile, it resumes as if nothing had been."""

import os
import signal
import threading
import time

import pytest
from small_runs import PRETRAINING, command_line, comparable_rows

from spe_dist import pretrain
from spe_dist.distributed import checkpoint
from spe_dist.distributed.checkpoint import Checkpoints, find_checkpoint
from spe_dist.distributed.fragments.tensors import Captured
from spe_dist.training.metrics import read_rows

pytestmark = pytest.mark.distributed

SETTINGS = {**PRETRAINING, "steps": 8, "checkpoint_every_steps": 3, "log_every_steps": 1, "queue_keys": 40}


def in_background():
    return threading.current_thread() is not threading.main_thread()


def kill_itself():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at(moment):
    """End this rank at a moment of the first save in the background (step 3; that of step 1 training waits for)."""
    rank, write = int(os.environ["RANK"]), Captured.write
    if moment == "half of a file is written" and rank == 1:

        def half(self, folder, group):
            if in_background():
                (folder / "tensors").mkdir(exist_ok=True)
                (folder / "tensors" / "rank_00001.safetensors").write_bytes(b"half")
                kill_itself()
            write(self, folder, group)

        Captured.write = half
    checksums, write_state, write_atomically = (
        Checkpoints._checksums,
        checkpoint.write_state,
        checkpoint.write_atomically,
    )
    if moment == "files are hashed" and rank == 1:
        Checkpoints._checksums = lambda *given: kill_itself() if in_background() else checksums(*given)
    if moment == "all is written and not renamed" and rank == 0:

        def whole(*given):
            write_state(*given)
            if in_background():
                kill_itself()

        checkpoint.write_state = whole
    if moment == "it is renamed and the pointer is the old one" and rank == 0:

        def renamed(path, *given):
            if in_background() and path.name == "latest":
                kill_itself()
            write_atomically(path, *given)

        checkpoint.write_atomically = renamed


def train(argv, moment=None, delay_s=0.0):
    if moment is not None:
        kill_at(moment)
    if delay_s:
        write = Captured.write

        def late(self, folder, group):
            if in_background():
                time.sleep(delay_s)
            write(self, folder, group)

        Captured.write = late
    return pretrain.main(argv)


@pytest.fixture(scope="module")
def undisturbed(run_ranks, demo_shards, tmp_path_factory):
    """Rows of a run whose checkpoints are not written in the background."""
    output = tmp_path_factory.mktemp("undisturbed")
    settings = {**SETTINGS, "shards": demo_shards, "output": output, "background_saving": "false"}
    assert run_ranks(train, 2, command_line(settings)) == [0, 0]
    return comparable_rows(output)


MOMENTS = {
    "half of a file is written": "step_00000001",
    "files are hashed": "step_00000001",
    "all is written and not renamed": "step_00000001",
    "it is renamed and the pointer is the old one": "step_00000003",
}


@pytest.mark.parametrize(
    "moment", [pytest.param(m, marks=() if n in (0, 3) else pytest.mark.long) for n, m in enumerate(MOMENTS)]
)
def test_a_rank_killed_while_it_saves_in_the_background_leaves_the_last_whole_checkpoint(
    run_ranks, demo_shards, tmp_path, undisturbed, moment
):
    argv = command_line({**SETTINGS, "shards": demo_shards, "output": tmp_path / "run"})
    with pytest.raises(AssertionError, match="rank"):
        run_ranks(train, 2, argv, moment)
    found = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("step_*"))
    assert found[-1] == MOMENTS[moment]
    assert run_ranks(train, 2, [*argv, "--resume=auto"]) == [0, 0]
    assert comparable_rows(tmp_path / "run") == undisturbed


def test_training_goes_on_meanwhile_and_the_end_waits_for_the_save(run_ranks, demo_shards, tmp_path, undisturbed):
    output = tmp_path / "run"
    argv = command_line({**SETTINGS, "checkpoint_every_steps": 7, "shards": demo_shards, "output": output})
    assert run_ranks(train, 2, argv, None, 3.0) == [0, 0]
    assert comparable_rows(output) == undisturbed
    assert find_checkpoint(output).name == "step_00000008"
    assert (output / "checkpoints" / "step_00000007").is_dir()
    (first,) = [row for row in read_rows(output / "metrics.jsonl", "train") if "save_s" in row]
    assert first["step"] == 2 and first["save_wait_s"] == first["save_s"] > 0
