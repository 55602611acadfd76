"""slurm/pretrain.sh with a stand-in for the training: tasks, ports, signals, exit statuses."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from project import ROOT

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]


# Writes where it runs, then does what --act says. As in training, signals only set a flag.
STAND_IN = """
import argparse, json, os, signal, time
from dataclasses import asdict
from pathlib import Path
from spe_dist.distributed.launch import detect

parser = argparse.ArgumentParser()
parser.add_argument("--output", type=Path)
parser.add_argument("--resume", action="append")
parser.add_argument("--act", default="finish")
options = parser.parse_args()
place = detect()
asked = []
if options.act != "deaf":
    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, lambda got, frame: asked.append(signal.Signals(got).name))
options.output.mkdir(parents=True, exist_ok=True)
facts = {**asdict(place), "resume": options.resume, "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
         "threads": os.environ["OMP_NUM_THREADS"]}
part = options.output / f"part.{place.rank}"
part.write_text(json.dumps(facts))
part.rename(options.output / f"started.{place.restart_count}.{place.rank}")
if options.act == "fail" and place.rank == 1:
    while not (options.output / "started.0.0").exists():  # not yet taking signals, it would die of TERM: status 143
        time.sleep(0.05)
    raise SystemExit(7)
deadline = time.monotonic() + (0 if options.act == "finish" or place.restart_count else 60)
while time.monotonic() < deadline and not asked and not (options.output / "STOP").exists():
    time.sleep(0.05)
if (options.output / "STOP").exists():
    asked.append("STOP")
if asked:
    time.sleep(1)
    (options.output / f"saved.{place.restart_count}.{place.rank}").write_text(asked[0])
    if place.rank == 0:
        (options.output / "checkpoints").mkdir(exist_ok=True)
        (options.output / "checkpoints" / "latest").touch()
        if options.act == "wait":  # as training does: rank 0 leaves last, with the status of a stopped run
            time.sleep(2)
            raise SystemExit(75)
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose spe_dist/pretrain.py is the stand-in; the script itself is ours, unedited."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "slurm").mkdir()
    (folder / "slurm" / "pretrain.sh").symlink_to(ROOT / "slurm" / "pretrain.sh")
    (folder / "spe_dist").mkdir()
    for name in ("__init__.py", "errors.py", "distributed"):
        (folder / "spe_dist" / name).symlink_to(ROOT / "spe_dist" / name)
    (folder / "spe_dist" / "pretrain.py").write_text(STAND_IN)
    (folder / ".venv" / "bin").mkdir(parents=True)
    python = folder / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return folder


def started(output: Path, start: int = 0) -> list[dict]:
    """What the ranks of a start wrote, in rank order."""
    found = [json.loads(file.read_text()) for file in output.glob(f"started.{start}.*")]
    return sorted(found, key=lambda facts: facts["rank"])


def test_one_task_runs_per_gpu_on_every_node(cluster, checkout, tmp_path):
    job = cluster.submit(
        checkout, "--nodes=2", "--gpus-per-node=2", "--cpus-per-gpu=2", "slurm/pretrain.sh", "--output", str(tmp_path)
    )
    assert job.wait_for_state("COMPLETED", "FAILED") == "COMPLETED", job.text
    ranks = started(tmp_path)
    assert [(r["rank"], r["ranks"], r["local_rank"], r["node"]) for r in ranks] == [
        (0, 4, 0, "vn1"),
        (1, 4, 1, "vn1"),
        (2, 4, 0, "vn2"),
        (3, 4, 1, "vn2"),
    ]
    assert {r["master_addr"] for r in ranks} == {"vn1"}
    assert {r["launcher"] for r in ranks} == {"slurm"}
    assert {(r["gpus"], r["threads"]) for r in ranks} == {("0,1", "2")}


def test_without_gpus_the_tasks_are_those_asked_of_sbatch(cluster, checkout, tmp_path):
    options = ["--nodes=2", "--ntasks-per-node=2", "--cpus-per-task=3"]
    job = cluster.submit(checkout, *options, "slurm/pretrain.sh", "--output", str(tmp_path))
    assert job.wait_for_state("COMPLETED", "FAILED") == "COMPLETED", job.text
    assert [(r["rank"], r["local_ranks"], r["threads"]) for r in started(tmp_path)] == [(r, 2, "3") for r in range(4)]


def test_gpus_without_cpus_of_their_own_still_get_a_task_each(cluster, checkout, tmp_path):
    job = cluster.submit(checkout, "--gpus-per-node=2", "slurm/pretrain.sh", "--output", str(tmp_path))
    assert job.wait_for_state("COMPLETED", "FAILED") == "COMPLETED", job.text
    assert len(started(tmp_path)) == 2
    assert "ask with --cpus-per-gpu" in job.text


def test_submitted_from_elsewhere_it_finds_the_checkout_and_names_a_folder_by_the_job(cluster, checkout, tmp_path):
    job = cluster.submit(tmp_path, str(checkout / "slurm" / "pretrain.sh"))
    assert job.wait_for_state("COMPLETED", "FAILED") == "COMPLETED", job.text
    (rank,) = started(tmp_path / "runs" / f"spe-pretrain-{job.number}")
    assert (rank["ranks"], rank["resume"]) == (1, ["auto"])


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"SPE_HOME": "/nowhere"}, "SPE_HOME=/nowhere holds no spe_dist/pretrain.py"),
        ({"SPE_PYTHON": "/nowhere/python"}, "SPE_PYTHON=/nowhere/python cannot be run"),
    ],
)
def test_a_wrong_checkout_or_python_is_named(cluster, checkout, tmp_path, variables, message):
    job = cluster.submit(tmp_path, str(checkout / "slurm" / "pretrain.sh"), **variables)
    job.wait_for_state("FAILED")
    assert message in job.text


def test_gpus_spread_unevenly_are_refused(cluster, checkout, tmp_path):
    job = cluster.submit(tmp_path, "--nodes=2", "--gpus=3", str(checkout / "slurm" / "pretrain.sh"))
    job.wait_for_state("FAILED")
    assert "ask with --gpus-per-node" in job.text


def test_jobs_that_share_a_node_get_different_ports_below_the_ephemeral_range(cluster, checkout, tmp_path):
    jobs = [
        cluster.submit(checkout, "slurm/pretrain.sh", "--act=wait", "--output", str(tmp_path / str(number)))
        for number in range(4)
    ]
    ports = []
    for number, job in enumerate(jobs):
        job.wait_for(lambda number=number: started(tmp_path / str(number)))
        ports.append(started(tmp_path / str(number))[0]["master_port"])
    assert len(set(ports)) == 4
    assert all(20_000 <= port < 32_768 for port in ports)


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


def test_a_run_stopped_by_its_file_ends_the_job_with_status_75_so_that_nothing_depends_on_it(
    cluster, checkout, tmp_path
):
    job = cluster.submit(checkout, "--nodes=2", "slurm/pretrain.sh", "--act=wait", "--output", str(tmp_path))
    job.wait_for(lambda: len(started(tmp_path)) == 2)
    (tmp_path / "STOP").touch()
    job.wait_for_state("FAILED")
    assert job.field("ExitCode") == "75:0" and job.field("Restarts") == "0"
    assert "stopped as asked and saved" in job.text


def test_a_run_that_finishes_though_it_was_asked_to_stop_is_not_requeued(cluster, checkout, tmp_path):
    job = cluster.submit(checkout, "slurm/pretrain.sh", "--act=end", "--output", str(tmp_path))
    job.wait_for(lambda: started(tmp_path))
    cluster.run("scontrol", "update", f"JobId={job.number}", "TimeLimit=1")
    assert job.wait_for_state("COMPLETED", "FAILED") == "COMPLETED", job.text
    assert "finished in spite of USR1" in job.text and job.field("Restarts") == "0"


@pytest.mark.parametrize("way", ["time limit", "requeue", "preemption"])
def test_a_stopped_job_saves_and_goes_on_by_itself(cluster, checkout, tmp_path, way):
    given = ["--act=wait", "--resume=never", f"--output={tmp_path}"]
    job = cluster.submit(checkout, "--nodes=2", "slurm/pretrain.sh", *given)
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
    assert signals == ["SIGUSR1" if way == "time limit" else "SIGTERM"] * 2
    cluster.run("scontrol", "update", f"JobId={job.number}", "TimeLimit=UNLIMITED")
    job.start_again()
    assert job.wait_for_state("COMPLETED", "FAILED") == "COMPLETED", job.text
    assert job.field("Restarts") == "1"
    assert {tuple(rank["resume"]) for rank in started(tmp_path)} == {("auto", "never")}
    assert {tuple(rank["resume"]) for rank in started(tmp_path, start=1)} == {("auto", "never", "auto")}
    assert "start 1," in job.text and "start 2," in job.text


def test_ranks_that_had_not_begun_at_the_time_limit_are_not_requeued_for_ever(cluster, checkout, tmp_path):
    job = cluster.submit(checkout, "slurm/pretrain.sh", "--act=deaf", "--output", str(tmp_path))
    job.wait_for(lambda: started(tmp_path))
    cluster.run("scontrol", "update", f"JobId={job.number}", "TimeLimit=1")
    job.wait_for_state("FAILED")
    assert "not requeued" in job.text and "too short" in job.text
    assert os.path.exists(job.log)
