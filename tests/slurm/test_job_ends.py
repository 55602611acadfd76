"""How jobs of slurm/pretrain.sh and finetune.sh end and begin again: signals, lost nodes, exit statuses."""

from __future__ import annotations

import os

import pytest

from spe_dist.cli.exits import STOPPED
from tests.slurm.stand_in import PROGRAMS, started

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_job_that_loses_a_node_goes_on_with_the_other_and_with_both_once_it_is_back(
    cluster, checkout, tmp_path, program
):
    given = ["--act", "wait always", "--output", str(tmp_path)]
    job = cluster.submit(checkout, "--nodes=1-2", "--gpus-per-node=2", f"slurm/{program}.sh", *given)
    job.wait_for(lambda: len(started(tmp_path)) == 4)
    cluster.lose("vn2")
    job.start_again()
    job.wait_for(lambda: len(started(tmp_path, start=1)) == 2)
    assert {rank["node"] for rank in started(tmp_path, start=1)} == {"vn1"}
    cluster.bring_back("vn2")
    cluster.run("scontrol", "requeue", job.number)
    job.start_again()
    job.wait_for(lambda: len(started(tmp_path, start=2)) == 4)
    assert [rank["ranks"] for start in range(3) for rank in started(tmp_path, start)] == [4] * 4 + [2] * 2 + [4] * 4
    assert job.field("Restarts") == "2"


def test_a_failing_rank_ends_the_job_at_once_with_its_status(cluster, checkout, tmp_path):
    job = cluster.submit(checkout, "--nodes=2", "slurm/pretrain.sh", "--act=fail", "--output", str(tmp_path))
    job.wait_for_state("FAILED", timeout_s=40)
    assert job.field("ExitCode") == "7:0"
    assert job.field("Restarts") == "0"
    assert job.field("RunTime") < "00:00:30"


def test_cancelling_lets_the_ranks_save_and_does_not_requeue(cluster, checkout, tmp_path):
    job = cluster.submit(checkout, "--nodes=2", "slurm/pretrain.sh", "--act=wait", "--output", str(tmp_path))
    job.wait_for(lambda: len(started(tmp_path)) == 2)
    cluster.run("scancel", job.number)
    job.wait_for_state("CANCELLED")
    job.wait_for(lambda: len(list(tmp_path.glob("saved.0.*"))) == 2)
    assert job.field("Restarts") == "0"


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("way", ["time limit", "requeue", "preemption"])
def test_a_stopped_job_saves_and_goes_on_by_itself(cluster, checkout, tmp_path, way, program):
    given = ["--act=wait", "--resume=never", f"--output={tmp_path}"]
    job = cluster.submit(checkout, "--nodes=2", f"slurm/{program}.sh", *given)
    job.wait_for(lambda: len(started(tmp_path)) == 2)
    if way == "time limit":
        cluster.run("scontrol", "update", f"JobId={job.number}", "TimeLimit=1")
    elif way == "requeue":
        cluster.run("scontrol", "requeue", job.number)
    else:
        # Slurm sends TERM to the tasks alone: the script learns of it from the job's record.
        cluster.submit(tmp_path, "--partition=urgent", "--nodes=2", "--exclusive", "--wrap=sleep 1")
    job.wait_for_state("PENDING")
    signals = [file.read_text() for file in tmp_path.glob("saved.0.*")]
    first = {"time limit": {"SIGUSR1"}, "preemption": {"SIGTERM"}}.get(way, {"SIGTERM", "SIGUSR1"})
    assert len(signals) == 2 and set(signals) <= first  # at a requeue Slurm's and the script's race
    cluster.run("scontrol", "update", f"JobId={job.number}", "TimeLimit=UNLIMITED")
    job.start_again()
    assert job.wait_for_state("COMPLETED", "FAILED") == "COMPLETED", job.text
    assert job.field("Restarts") == "1"
    assert {tuple(rank["resume"]) for rank in started(tmp_path)} == {("auto", "never")}
    assert {tuple(rank["resume"]) for rank in started(tmp_path, start=1)} == {("auto", "never", "auto")}
    assert "start 1," in job.text and "start 2," in job.text


def test_a_run_that_ends_at_the_time_limit_is_not_requeued(cluster, checkout, tmp_path):
    job = cluster.submit(checkout, "slurm/pretrain.sh", "--act=end", "--output", str(tmp_path))
    job.wait_for(lambda: started(tmp_path))
    cluster.run("scancel", "--batch", "--signal=USR1", job.number)
    job.wait_for_state("COMPLETED")
    assert job.field("Restarts") == "0"
    assert "finished before USR1 could stop it" in job.text


def test_a_run_that_was_stopped_by_its_file_ends_the_job_with_the_status_of_a_part(cluster, checkout, tmp_path):
    job = cluster.submit(checkout, "--nodes=2", "slurm/pretrain.sh", "--act=wait", "--output", str(tmp_path))
    job.wait_for(lambda: len(started(tmp_path)) == 2)
    (tmp_path / "STOP").touch()
    job.wait_for_state("FAILED")
    assert job.field("ExitCode") == f"{STOPPED}:0"
    assert job.field("Restarts") == "0"
    assert "submit it again with --output" in job.text


def test_ranks_that_had_not_begun_at_the_time_limit_are_not_requeued_for_ever(cluster, checkout, tmp_path):
    job = cluster.submit(checkout, "slurm/pretrain.sh", "--act=deaf", "--output", str(tmp_path))
    job.wait_for(lambda: started(tmp_path))
    cluster.run("scontrol", "update", f"JobId={job.number}", "TimeLimit=1")
    job.wait_for_state("FAILED")
    assert "not requeued" in job.text and "too short" in job.text
    assert os.path.exists(job.log)


def test_starts_that_come_to_no_step_before_the_time_limit_are_not_requeued_for_ever(cluster, checkout, tmp_path):
    job = cluster.submit(checkout, "slurm/pretrain.sh", "--act=stuck", "--output", str(tmp_path))
    for start in range(2):
        job.wait_for(lambda start=start: started(tmp_path, start))
        cluster.run("scancel", "--batch", "--signal=USR1", job.number)
        if start == 0:
            job.start_again()
    job.wait_for_state("FAILED")
    assert "came to a new checkpoint: not requeued" in job.text and job.field("ExitCode") == f"{STOPPED}:0"


def test_a_job_whose_ranks_were_ended_after_they_had_saved_is_requeued(cluster, checkout, tmp_path):
    job = cluster.submit(checkout, "slurm/pretrain.sh", "--act=killed", "--output", str(tmp_path))
    job.wait_for(lambda: started(tmp_path))
    cluster.run("scancel", "--batch", "--signal=USR1", job.number)
    job.start_again()
    assert job.wait_for_state("COMPLETED", "FAILED") == "COMPLETED", job.text
    assert job.field("Restarts") == "1"
