import socket

import pytest

from spe_dist.distributed import launch, ports
from spe_dist.errors import LaunchError

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "node7",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_RESTART_COUNT": "2",
}
DEEPSPEED = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "LOCAL_SIZE": "2",
    "CROSS_RANK": "0",
    "CROSS_SIZE": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}
SLURM = {
    "SLURM_JOB_ID": "12",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "4",
    "SLURM_NTASKS": "5",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "2",
    "SLURM_STEP_NUM_NODES": "3",
    "SLURM_STEP_NODELIST": "vn[1-3]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
    "SLURMD_NODENAME": "vn3",
    "SLURM_RESTART_COUNT": "1",
    "MASTER_ADDR": "vn1",
    "MASTER_PORT": "21000",
}


def without(variables: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name not in names}


def test_torchrun_variables_are_read():
    found = launch.detect(TORCHRUN)
    assert (found.launcher, found.rank, found.ranks, found.local_rank, found.local_ranks) == ("torchrun", 3, 4, 1, 2)
    assert (found.master_addr, found.master_port, found.restart_count) == ("node7", 29500, 2)
    assert found.node == socket.gethostname()


def test_deepspeed_variables_are_read():
    found = launch.detect(DEEPSPEED)
    assert (found.launcher, found.rank, found.ranks, found.local_rank, found.local_ranks) == ("deepspeed", 1, 2, 1, 2)


def test_slurm_step_variables_are_read_with_tasks_of_this_node():
    found = launch.detect(SLURM)
    assert (found.launcher, found.rank, found.ranks, found.local_rank, found.local_ranks) == ("slurm", 4, 5, 0, 1)
    assert (found.node, found.master_addr, found.master_port, found.restart_count) == ("vn3", "vn1", 21000, 1)


def test_torchrun_inside_a_slurm_step_counts_torchruns_ranks():
    agents = {**SLURM, "SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_NODEID": "0", **TORCHRUN}
    assert launch.detect(agents).launcher == "torchrun"
    assert launch.detect(agents).rank == 3


def test_no_variables_mean_one_process_with_a_free_port():
    found = launch.detect({})
    assert (found.launcher, found.rank, found.ranks, found.local_rank, found.local_ranks) == ("single", 0, 1, 0, 1)
    assert ports.LOWEST_PORT <= found.master_port < ports.ephemeral_low()


@pytest.mark.parametrize("step", [None, "4294967290", "4294967291"])
def test_a_shell_inside_an_allocation_without_srun_is_one_process(step):
    shell = {
        "SLURM_JOB_ID": "12",
        "SLURM_NTASKS": "8",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_JOB_NODELIST": "vn[1-2]",
        "MASTER_ADDR": "vn1",
        "MASTER_PORT": "21000",
    }
    if step is not None:
        shell["SLURM_STEP_ID"] = step
    found = launch.detect(shell)
    assert (found.launcher, found.ranks) == ("single", 1)


def test_a_step_of_one_task_needs_no_address():
    one = {**without(SLURM, "MASTER_ADDR", "MASTER_PORT"), "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}
    assert launch.detect(one).launcher == "single"


def test_a_one_task_step_of_the_job_script_keeps_its_address():
    one = {**SLURM, "SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_NODEID": "0", "SLURM_STEP_TASKS_PER_NODE": "1"}
    found = launch.detect({**one, "SLURM_STEP_NUM_NODES": "1"})
    assert (found.launcher, found.master_addr) == ("slurm", "vn1")


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        (without(TORCHRUN, "MASTER_ADDR", "MASTER_PORT"), ["not MASTER_ADDR, MASTER_PORT", "unset RANK"]),
        ({"WORLD_SIZE": "2"}, ["WORLD_SIZE=2", "not RANK"]),
        ({**TORCHRUN, "RANK": "4"}, ["RANK=4", "0 to 3", "WORLD_SIZE=4"]),
        ({**TORCHRUN, "RANK": "one"}, ["RANK", "'one'"]),
        ({**TORCHRUN, "LOCAL_RANK": "2"}, ["LOCAL_RANK=2", "LOCAL_WORLD_SIZE=2"]),
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": "9"}, ["LOCAL_WORLD_SIZE=9", "WORLD_SIZE=4"]),
        ({**TORCHRUN, "MASTER_PORT": "70000"}, ["MASTER_PORT=70000"]),
        (without(SLURM, "MASTER_PORT"), ["no MASTER_PORT", "slurm/pretrain.sh"]),
        ({**SLURM, "MASTER_ADDR": "127.0.0.1"}, ["MASTER_ADDR=127.0.0.1", "3 nodes", "scontrol show hostnames"]),
        ({**SLURM, "MASTER_ADDR": "localhost"}, ["localhost"]),
        ({**SLURM, "SLURM_PROCID": "5"}, ["SLURM_PROCID=5", "5 tasks"]),
        (without(SLURM, "SLURM_PROCID"), ["SLURM_PROCID is not set"]),
        ({**SLURM, "SLURM_LOCALID": "1"}, ["SLURM_LOCALID=1", "1 tasks"]),
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "2(y2)"}, ["2(y2)"]),
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "4(x99999999999)"}, ["4(x99999999999)"]),
        (
            {**SLURM, "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"},
            ["RANK=0 WORLD_SIZE=1", "SLURM_PROCID=4", "unset RANK"],
        ),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, ["OMPI_COMM_WORLD_SIZE=4", "torchrun"]),
    ],
)
def test_partial_or_contradictory_variables_are_named_with_a_remedy(environ, words):
    with pytest.raises(LaunchError) as caught:
        launch.detect(environ)
    for word in words:
        assert word in str(caught.value)


def test_export_writes_what_detect_reads():
    written: dict[str, str] = {}
    found = launch.detect(SLURM)
    found.export(written)
    assert written == {
        "RANK": "4",
        "WORLD_SIZE": "5",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "vn1",
        "MASTER_PORT": "21000",
    }
    again = launch.detect(written)
    assert (again.rank, again.ranks, again.local_rank, again.local_ranks) == (4, 5, 0, 1)


def test_the_placement_table_is_sorted_by_rank():
    table = launch.placement_table([(10, "vn2", "cuda:0"), (9, "vn1", "cpu")])
    assert table.splitlines() == [
        "rank  host  device",
        "----  ----  ------",
        "   9  vn1   cpu",
        "  10  vn2   cuda:0",
    ]


def test_a_step_whose_number_is_none_is_no_step():
    for step in ("²", "1e3", 5000 * "9"):
        assert launch.detect({**without(SLURM, "MASTER_ADDR"), "SLURM_STEP_ID": step}).launcher == "single"
