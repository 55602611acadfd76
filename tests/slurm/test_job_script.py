"""What slurm/pretrain.sh and finetune.sh start, and where: tasks, variables, ports, interpreters."""

from __future__ import annotations

import sys

import pytest
from project import ROOT

from tests.slurm.stand_in import STAND_IN, started, write_package, write_program, write_scripts

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]


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
