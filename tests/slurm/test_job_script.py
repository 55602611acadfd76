"""slurm/pretrain.sh and finetune.sh with a stand-in for the training: tasks, ports, signals, exit statuses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from project import ROOT

from spe_dist.cli.exits import STOPPED

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]


# Writes where it runs, then does what --act says. As in training, signals only set a flag.
PROGRAMS = ["pretrain", pytest.param("finetune", marks=pytest.mark.long)]  # both scripts hand over to job.sh
STAND_IN = """
import argparse, json, os, signal, time
from dataclasses import asdict
from pathlib import Path
from spe_dist.cli.exits import stopped_status
from spe_dist.distributed.launch import detect

parser = argparse.ArgumentParser()
parser.add_argument("--output", type=Path)
parser.add_argument("--resume", action="append")
parser.add_argument("--act", default="finish")
parser.add_argument("--seed")
parser.add_argument("--global_batch_sentences")
parser.add_argument("--print_config", action="store_true")
options = parser.parse_args()
if options.print_config:
    print("  micro_batch_sentences: 0")
    print(f"  global_batch_sentences: {options.global_batch_sentences or 240}")
    raise SystemExit
place = detect()
asked = []
if options.act != "deaf":
    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, lambda got, frame: asked.append(signal.Signals(got).name))
options.output.mkdir(parents=True, exist_ok=True)
facts = {**asdict(place), "program": Path(__file__).stem, "resume": options.resume,
         "python": os.environ.get("STAND_IN_PYTHON"), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
         "threads": os.environ["OMP_NUM_THREADS"]}
part = options.output / f"part.{place.rank}"
part.write_text(json.dumps(facts))
part.rename(options.output / f"started.{place.restart_count}.{place.rank}")
if options.act == "fail" and place.rank == 1:
    while not (options.output / "started.0.0").exists():  # not yet taking signals, it would die of TERM: status 143
        time.sleep(0.05)
    raise SystemExit(7)
ends = options.act == "finish" or (place.restart_count and options.act not in ("wait always", "stuck"))
deadline = time.monotonic() + (0 if ends else 60)
while time.monotonic() < deadline and not asked:
    if (options.output / "STOP").exists():
        asked.append("STOP")
    time.sleep(0.05)
if asked:
    time.sleep(1)
    (options.output / f"saved.{place.restart_count}.{place.rank}").write_text(asked[0])
    if place.rank == 0 and options.act != "stuck":
        (options.output / "checkpoints").mkdir(exist_ok=True)
        (options.output / "checkpoints" / "latest").write_text(f"step_{place.restart_count}")
    if options.act == "killed":  # once all is saved
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    if options.act != "end":
        raise SystemExit(1 if options.act == "fail" else stopped_status(place.rank, place.ranks))
"""


def write_package(folder: Path) -> None:
    """A package spe_dist in `folder` whose two trainings are the stand-in."""
    package = folder / "spe_dist"
    package.mkdir(parents=True)
    for name in ("__init__.py", "errors.py", "cli", "distributed", "utils"):
        (package / name).symlink_to(ROOT / "spe_dist" / name)
    for program in ("pretrain.py", "finetune.py"):
        (package / program).write_text(STAND_IN)


def write_scripts(folder: Path) -> None:
    """The job scripts themselves, unedited."""
    folder.mkdir()
    for name in ("pretrain.sh", "finetune.sh", "job.sh"):
        (folder / name).symlink_to(ROOT / "slurm" / name)


def write_program(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout")
    write_package(folder)
    write_scripts(folder / "slurm")
    write_program(folder / ".venv" / "bin" / "python", f'exec "{sys.executable}" "$@"')
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


def test_the_tasks_of_a_node_can_be_given_to_the_script_where_slurm_should_not_know_them(cluster, checkout, tmp_path):
    options = ["--nodes=1-2", "--mincpus=4", "slurm/pretrain.sh", "--output", str(tmp_path)]
    job = cluster.submit(checkout, *options, SPE_TASKS_PER_NODE="2")
    assert job.wait_for_state("COMPLETED", "FAILED") == "COMPLETED", job.text
    assert [(r["rank"], r["node"], r["threads"]) for r in started(tmp_path)] == [
        (0, "vn1", "2"),
        (1, "vn1", "2"),
        (2, "vn2", "2"),
        (3, "vn2", "2"),
    ]


def test_tasks_get_the_variables_of_the_script_where_the_job_was_submitted_without_those_of_the_shell(
    cluster, checkout, tmp_path
):
    """sbatch --export is taken by srun too, which would leave out the address where the ranks meet."""
    options = ["--nodes=2", "--export=PREFLIGHT=0,OMP_NUM_THREADS=3"]
    job = cluster.submit(checkout, *options, "slurm/pretrain.sh", "--output", str(tmp_path))
    assert job.wait_for_state("COMPLETED", "FAILED") == "COMPLETED", job.text
    assert [(r["rank"], r["master_addr"], r["threads"]) for r in started(tmp_path)] == [
        (0, "vn1", "3"),
        (1, "vn1", "3"),
    ]


@pytest.mark.parametrize(
    ("variables", "gpus"),
    [
        ("", "0"),
        ("SLURM_GPUS_ON_NODE=4", "4"),
        ("SLURM_GPUS_ON_NODE=a100:4", "4"),
        ("SLURM_JOB_GPUS=0,1,2", "3"),
        ("SLURM_JOB_GPUS=3", "1"),
    ],
)
def test_gpus_are_counted_by_what_slurm_says(variables, gpus):
    function = re.search(r"^count_gpus\(\) \{.*?^\}", (ROOT / "slurm" / "job.sh").read_text(), re.DOTALL | re.MULTILINE)
    script = f"set -eu\n{variables}\n{function[0]}\ncount_gpus"
    assert subprocess.run(["bash", "-c", script], capture_output=True, text=True, env={}).stdout == f"{gpus}\n"


def test_the_first_of_thousands_of_nodes_is_where_the_ranks_meet():
    (line,) = re.findall(r"^MASTER_ADDR=.*", (ROOT / "slurm" / "job.sh").read_text(), re.MULTILINE)
    lines = [
        "set -euo pipefail",
        "SLURM_JOB_NODELIST=x",
        "scontrol() { printf 'node%d\\n' {1..50000}; }",
        line,
        "echo $MASTER_ADDR",
    ]
    found = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "node1\n")


@pytest.mark.parametrize(("answers_at", "state"), [(1, "RUNNING"), (3, "RUNNING"), (99, "")])
def test_a_controller_that_does_not_answer_is_asked_again(answers_at, state):
    body = (ROOT / "slurm" / "job.sh").read_text()
    functions = [
        re.search(rf"^{name}\(\) \{{(.*?^\}}|.*\}}$)", body, re.DOTALL | re.MULTILINE)[0]
        for name in ("ask_slurm", "job_field")
    ]
    lines = [
        "set -euo pipefail",
        "asked=$(mktemp)",
        "sleep() { :; }",
        'scontrol() { echo >>"$asked"',
        f'    (($(wc -l <"$asked") < {answers_at})) && return 1; echo "A=1 JobState=RUNNING B=2"; }}',
        *functions,
        "job=7",
        "state=$(job_field JobState)",
        'rm "$asked"',
        'echo "state $state"',
    ]
    found = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True)
    assert found.stdout == f"state {state}\n", found.stderr


def test_a_number_of_tasks_that_is_none_is_named(cluster, checkout, tmp_path):
    job = cluster.submit(checkout, "slurm/pretrain.sh", SPE_TASKS_PER_NODE="two")
    job.wait_for_state("FAILED")
    assert "SPE_TASKS_PER_NODE=two is no positive number" in job.text


@pytest.mark.parametrize(
    ("batch", "ranks", "line"),
    [
        ("12", 4, None),
        ("9", 3, "does not divide by 6 ranks (micro-batches of 1): training on 3, 3 on each of 1 of 2 node(s)"),
        ("10", 2, "training on 2, 2 on each of 1 of 2 node(s); the rest stays idle"),
    ],
)
def test_a_batch_that_does_not_divide_is_trained_on_the_most_ranks_that_fit(
    cluster, checkout, tmp_path, batch, ranks, line
):
    options = ["--nodes=1-2", "--mincpus=4", "slurm/pretrain.sh", "--output", str(tmp_path)]
    per_node = "3" if ranks == 3 else "2"
    job = cluster.submit(checkout, *options, "--global_batch_sentences", batch, SPE_TASKS_PER_NODE=per_node)
    assert job.wait_for_state("COMPLETED", "FAILED") == "COMPLETED", job.text
    found = started(tmp_path)
    assert [rank["ranks"] for rank in found] == [ranks] * ranks
    assert found[0]["node"] == found[0]["master_addr"] == "vn1"
    assert (line in job.text) if line else ("does not divide" not in job.text)


def test_a_total_of_gpus_is_no_bar_to_training_on_fewer_nodes(cluster, checkout, tmp_path):
    options = ["--nodes=2", "--gpus=4", "--cpus-per-gpu=1", "slurm/pretrain.sh", "--output", str(tmp_path)]
    job = cluster.submit(checkout, *options, "--global_batch_sentences", "2")
    assert job.wait_for_state("COMPLETED", "FAILED") == "COMPLETED", job.text
    assert [(rank["node"], rank["gpus"]) for rank in started(tmp_path)] == [("vn1", "0,1")] * 2


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


def test_submitted_from_elsewhere_it_finds_the_checkout_and_names_a_folder_by_the_job(cluster, checkout, tmp_path):
    job = cluster.submit(tmp_path, str(checkout / "slurm" / "pretrain.sh"))
    assert job.wait_for_state("COMPLETED", "FAILED") == "COMPLETED", job.text
    (rank,) = started(tmp_path / "runs" / f"spe-pretrain-{job.number}")
    assert (rank["ranks"], rank["resume"]) == (1, ["auto"])


def test_without_a_checkout_it_runs_the_package_that_is_installed(cluster, tmp_path):
    write_package(tmp_path / "site-packages")
    write_scripts(tmp_path / "jobs")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "json.py").write_text("raise SystemExit('a module of the folder of submission was imported')")
    python = write_program(
        tmp_path / "bin" / "python", f'PYTHONPATH="{tmp_path}/site-packages" exec "{sys.executable}" "$@"'
    )
    for program in ("pretrain", "finetune"):
        script, output = str(tmp_path / "jobs" / f"{program}.sh"), tmp_path / program
        job = cluster.submit(tmp_path / "work", script, "--output", str(output), SPE_PYTHON=str(python))
        assert job.wait_for_state("COMPLETED", "FAILED") == "COMPLETED", job.text
        assert [rank["program"] for rank in started(output)] == [program]


def test_a_container_runs_the_interpreter_of_the_image_with_gpus_where_there_are_some(cluster, checkout, tmp_path):
    write_package(tmp_path / "image")
    shown = 'echo "$@" >>"' + str(tmp_path) + '/asked"; while [ "$1" != image.sif ]; do shift; done; shift 2'
    inside = f'PYTHONPATH="{tmp_path}/image" STAND_IN_PYTHON=inside exec "{sys.executable}" "$@"'
    write_program(tmp_path / "bin" / "apptainer", f"{shown}; {inside}")
    (tmp_path / "image.sif").touch()
    words = ["--gpus-per-node=1", str(checkout / "slurm" / "pretrain.sh"), "--output", str(tmp_path / "out")]
    variables = {"SPE_CONTAINER": "image.sif", "SPE_CONTAINER_OPTIONS": "--bind /shared"}
    path = f"{tmp_path / 'bin'}:{cluster.environment['PATH']}"
    job = cluster.submit(tmp_path, *words, **variables, PATH=path)
    assert job.wait_for_state("COMPLETED", "FAILED") == "COMPLETED", job.text
    assert [rank["python"] for rank in started(tmp_path / "out")] == ["inside"]
    asked = (tmp_path / "asked").read_text().splitlines()
    assert [line.split(" -m ")[0] for line in asked] == ["exec --bind /shared --nv image.sif python3"] * 3


def test_an_array_puts_its_index_into_the_options(cluster, checkout, tmp_path):
    output = f"{tmp_path}/seed-%a"
    job = cluster.submit(checkout, "--array=3-4", "slurm/finetune.sh", "--seed", "%a", "--output", output)
    job.wait_for(lambda: started(tmp_path / "seed-3") and started(tmp_path / "seed-4"), timeout_s=60)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"SPE_CONTAINER": "/nowhere.sif"}, "SPE_CONTAINER=/nowhere.sif does not exist"),
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


def test_the_nodes_are_looked_at_before_each_start(cluster, checkout, tmp_path):
    """With the package itself, whose trainings alone are the stand-in."""
    home = tmp_path / "checkout"
    write_scripts(tmp_path / "checkout_slurm")
    (home / "spe_dist").mkdir(parents=True)
    for path in (ROOT / "spe_dist").iterdir():
        if path.name not in ("pretrain.py", "finetune.py"):
            (home / "spe_dist" / path.name).symlink_to(path)
    for program in ("pretrain.py", "finetune.py"):
        (home / "spe_dist" / program).write_text(STAND_IN)
    (tmp_path / "checkout_slurm").rename(home / "slurm")
    write_program(home / ".venv" / "bin" / "python", f'exec "{sys.executable}" "$@"')
    options = ["--nodes=2", "--ntasks-per-node=1", "slurm/pretrain.sh", "--output", str(tmp_path / "run")]
    job = cluster.submit(home, *options, PREFLIGHT="1")
    assert job.wait_for_state("COMPLETED", "FAILED", timeout_s=240) == "COMPLETED", job.text
    assert "2 ranks met at vn1:" in job.text and "preflight: " in job.text, job.text
    assert "2 x CPU on 2 nodes" in job.text and "is shared by all ranks" in job.text
    assert len(started(tmp_path / "run")) == 2

    unwritable = tmp_path / "file"
    unwritable.write_text("")
    job = cluster.submit(home, *options[:-1], str(unwritable / "run"), PREFLIGHT="1")
    assert job.wait_for_state("COMPLETED", "FAILED", timeout_s=240) == "FAILED"
    assert "problem" in job.text and "nothing was started; PREFLIGHT=0 leaves it out" in job.text, job.text
