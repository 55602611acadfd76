import os

import pytest

from spe_dist.distributed.fence import OWNER_FILE, Fence
from spe_dist.distributed.stop import remove_stop_file
from spe_dist.errors import CheckpointError


def start_of(folder, job: str = "7", restarts: int = 0) -> Fence:
    environ = {"SLURM_JOB_ID": job, "SLURM_RESTART_COUNT": str(restarts)} if job else {}
    return Fence(folder, environ)


def test_the_owner_may_write_as_long_as_nobody_takes_over(tmp_path):
    fence = start_of(tmp_path / "run")
    fence.claim()
    fence.check()
    fence.check()
    assert [file.name for file in (tmp_path / "run").iterdir()] == [OWNER_FILE]


def test_nobody_writes_without_a_claim(tmp_path):
    with pytest.raises(CheckpointError, match="no longer owns"):
        start_of(tmp_path).check()


def test_a_requeued_start_takes_over_and_the_old_one_may_not_write(tmp_path):
    old, new = start_of(tmp_path, restarts=0), start_of(tmp_path, restarts=1)
    old.claim()
    new.claim()
    new.check()
    with pytest.raises(CheckpointError, match="Slurm job 7 start 1"):
        old.check()


def test_an_old_start_that_comes_late_cannot_claim_the_folder_back(tmp_path):
    new, old = start_of(tmp_path, restarts=2), start_of(tmp_path, restarts=1)
    new.claim()
    with pytest.raises(CheckpointError, match="taken over"):
        old.claim()
    new.check()


@pytest.mark.parametrize("job", ["8", ""])
def test_another_job_or_a_start_by_hand_takes_over(tmp_path, job):
    old, new = start_of(tmp_path, restarts=3), start_of(tmp_path, job=job)
    old.claim()
    new.claim()
    new.check()
    with pytest.raises(CheckpointError):
        old.check()


def test_a_damaged_owner_file_is_claimed_anew(tmp_path):
    (tmp_path / OWNER_FILE).write_text("{")
    fence = start_of(tmp_path)
    with pytest.raises(CheckpointError):
        fence.check()
    fence.claim()
    fence.check()


def test_a_pipe_as_owner_file_is_an_error_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / OWNER_FILE)
    with pytest.raises(CheckpointError, match=rf"{OWNER_FILE} cannot be read \(a pipe or device, not a file\); remove"):
        start_of(tmp_path).claim()


def test_a_folder_that_cannot_be_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        remove_stop_file(folder)
        with pytest.raises(CheckpointError, match=f"output={folder} cannot be written"):
            start_of(folder).claim()
