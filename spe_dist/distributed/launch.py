"""Which launcher started this process, and where its ranks meet.

`deepspeed` and `torchrun` give RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT; `srun` gives SLURM_* for each
task while `slurm/pretrain.sh` adds MASTER_ADDR and MASTER_PORT; plain `python` gives nothing and trains alone. `detect`
reads all of them into one `LaunchEnvironment`, and `export` writes it back in the form that torch and DeepSpeed read
(DeepSpeed looks for mpi4py where RANK is missing).
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Literal

from spe_dist.distributed.ports import free_port
from spe_dist.errors import LaunchError
from spe_dist.utils.tables import aligned
from spe_dist.utils.wording import short

Launcher = Literal["deepspeed", "torchrun", "slurm", "single"]

TORCH_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
# Slurm numbers the steps that srun starts from 0; batch, extern and interactive shells are steps with ids up here.
FIRST_SPECIAL_SLURM_STEP = 0xFFFF_FFF0


@dataclass(frozen=True)
class LaunchEnvironment:
    """One process's place among the ranks of a run.

    `node` is this machine's name (Slurm's own where there is one); `restart_count` how often the launcher has started
    the run again (requeued Slurm job, restarted torchrun worker).
    """

    launcher: Launcher
    rank: int
    ranks: int
    local_rank: int
    local_ranks: int
    node: str
    master_addr: str
    master_port: int
    restart_count: int = 0

    def export(self, environ: MutableMapping[str, str] = os.environ) -> None:
        """Set the variables that torch.distributed and DeepSpeed read."""
        environ["RANK"] = str(self.rank)
        environ["WORLD_SIZE"] = str(self.ranks)
        environ["LOCAL_RANK"] = str(self.local_rank)
        environ["LOCAL_WORLD_SIZE"] = str(self.local_ranks)
        environ["MASTER_ADDR"] = self.master_addr
        environ["MASTER_PORT"] = str(self.master_port)


def detect(environ: Mapping[str, str] = os.environ) -> LaunchEnvironment:
    """Where this process stands, by the variables its launcher set.

    Raises LaunchError where variables are missing, no numbers, or contradict each other. A shell inside a Slurm
    allocation (`salloc`, the batch script itself) is no task of a step: a process started there trains alone.
    """
    if any(environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")):
        return _from_torch_variables(environ)
    if _in_slurm_step(environ):
        tasks = _slurm_tasks(environ)
        if tasks > 1 or (environ.get("MASTER_ADDR") and environ.get("MASTER_PORT")):
            return _from_slurm_step(environ, tasks)
    else:
        _refuse_mpi(environ)
    return LaunchEnvironment(
        launcher="single",
        rank=0,
        ranks=1,
        local_rank=0,
        local_ranks=1,
        node=node_name(environ),
        master_addr="127.0.0.1",
        master_port=free_port(),
        restart_count=_restart_count(environ),
    )


def _from_torch_variables(environ: Mapping[str, str]) -> LaunchEnvironment:
    missing = [name for name in TORCH_VARIABLES if not environ.get(name)]
    if missing:
        present = [f"{name}={environ[name]}" for name in TORCH_VARIABLES if environ.get(name)]
        raise LaunchError(
            f"{', '.join(present)} set but not {', '.join(missing)}: either all of {', '.join(TORCH_VARIABLES)} are "
            f"needed or none; start with `deepspeed`, `torchrun` or `srun`, which set them, or "
            f"`unset {' '.join(name for name in TORCH_VARIABLES if environ.get(name))}` to train in one process"
        )
    ranks = _whole_number(environ, "WORLD_SIZE", lowest=1)
    rank = _whole_number(environ, "RANK", highest=ranks - 1, because=f"WORLD_SIZE={ranks}")
    # torchrun says LOCAL_WORLD_SIZE, deepspeed LOCAL_SIZE
    size_name = next((name for name in ("LOCAL_WORLD_SIZE", "LOCAL_SIZE") if environ.get(name)), "WORLD_SIZE")
    local_ranks = _whole_number(environ, size_name, lowest=1, highest=ranks, because=f"WORLD_SIZE={ranks}")
    local_rank = _whole_number(environ, "LOCAL_RANK", highest=local_ranks - 1, because=f"{size_name}={local_ranks}")
    by_deepspeed = bool(environ.get("CROSS_RANK")) and not environ.get("TORCHELASTIC_RUN_ID")
    if not by_deepspeed and not environ.get("TORCHELASTIC_RUN_ID"):
        _refuse_variables_left_in_the_shell(environ, rank, ranks)
    return LaunchEnvironment(
        launcher="deepspeed" if by_deepspeed else "torchrun",
        rank=rank,
        ranks=ranks,
        local_rank=local_rank,
        local_ranks=local_ranks,
        node=node_name(environ),
        master_addr=environ["MASTER_ADDR"],
        master_port=_port(environ),
        restart_count=_restart_count(environ),
    )


def _from_slurm_step(environ: Mapping[str, str], tasks: int) -> LaunchEnvironment:
    rank = _whole_number(environ, "SLURM_PROCID", highest=tasks - 1, because=f"the step has {tasks} tasks")
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not environ.get(name)]
    if missing:
        raise LaunchError(
            f"task {rank} of {tasks} of Slurm step {environ['SLURM_STEP_ID']} has no {' and '.join(missing)}, so the "
            "tasks cannot meet; submit `sbatch slurm/pretrain.sh`, or before srun "
            '`export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1) '
            "MASTER_PORT=$(python -m spe_dist.distributed.ports)`"
        )
    nodes = _whole_number(environ, "SLURM_STEP_NUM_NODES", lowest=1) if environ.get("SLURM_STEP_NUM_NODES") else 1
    address = environ["MASTER_ADDR"]
    if nodes > 1 and (address == "localhost" or address == "::1" or address.startswith("127.")):
        raise LaunchError(
            f"MASTER_ADDR={address} is each node's own address, but the Slurm step has {nodes} nodes; set it to the "
            'first of `scontrol show hostnames "$SLURM_JOB_NODELIST"`'
        )
    local_ranks = _slurm_local_tasks(environ, tasks)
    return LaunchEnvironment(
        launcher="slurm",
        rank=rank,
        ranks=tasks,
        local_rank=_whole_number(
            environ, "SLURM_LOCALID", highest=local_ranks - 1, because=f"this node has {local_ranks} tasks"
        ),
        local_ranks=local_ranks,
        node=node_name(environ),
        master_addr=address,
        master_port=_port(environ),
        restart_count=_restart_count(environ),
    )


def _in_slurm_step(environ: Mapping[str, str]) -> bool:
    """Whether srun started this process (or a shell above it), not the batch or interactive shell of a job."""
    step = environ.get("SLURM_STEP_ID", "")
    return re.fullmatch(r"[0-9]{1,18}", step) is not None and int(step) < FIRST_SPECIAL_SLURM_STEP


def _slurm_tasks(environ: Mapping[str, str]) -> int:
    name = "SLURM_STEP_NUM_TASKS" if environ.get("SLURM_STEP_NUM_TASKS") else "SLURM_NTASKS"
    return _whole_number(environ, name, lowest=1)


def _slurm_local_tasks(environ: Mapping[str, str], tasks: int) -> int:
    """Tasks of this step on this node, from a list such as `4(x2),3` and the node's place in it."""
    text = environ.get("SLURM_STEP_TASKS_PER_NODE") or environ.get("SLURM_TASKS_PER_NODE")
    if not text:
        return tasks
    counts: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,7})(?:\(x([0-9]{1,7})\))?", part.strip())
        if match is None:
            raise LaunchError(f"cannot read SLURM_STEP_TASKS_PER_NODE={text:.80}; expected a list such as 4(x2),3")
        counts += [int(match[1])] * int(match[2] or 1)
    node = _whole_number(environ, "SLURM_NODEID", highest=len(counts) - 1, because=f"SLURM_STEP_TASKS_PER_NODE={text}")
    return counts[node]


def _refuse_variables_left_in_the_shell(environ: Mapping[str, str], rank: int, ranks: int) -> None:
    """RANK exported in the shell before srun makes every task the same rank: it would wait endlessly."""
    if not _in_slurm_step(environ):
        return
    tasks = _slurm_tasks(environ)
    task = _whole_number(environ, "SLURM_PROCID")
    if tasks > 1 and (rank, ranks) != (task, tasks):
        raise LaunchError(
            f"RANK={rank} WORLD_SIZE={ranks} contradict SLURM_PROCID={task} SLURM_NTASKS={tasks}; "
            "`unset RANK WORLD_SIZE LOCAL_RANK` before srun"
        )


def _refuse_mpi(environ: Mapping[str, str]) -> None:
    for name in MPI_SIZES:
        if environ.get(name, "1") not in ("0", "1"):
            raise LaunchError(
                f"{name}={environ[name]}: mpirun is not a supported launcher, its processes would each train alone; "
                "start with `srun`, `torchrun` or `deepspeed`"
            )


def _whole_number(
    environ: Mapping[str, str], name: str, lowest: int = 0, highest: int | None = None, because: str = ""
) -> int:
    """The variable as an int in lowest..highest; LaunchError names it and the reason otherwise."""
    text = environ.get(name, "")
    reason = f" ({because})" if because else ""
    try:
        number = int(text)
    except ValueError:
        state = f"is {short(text)}, no whole number" if text else "is not set"
        raise LaunchError(f"{name} {state}; start the run by its launcher, which sets it{reason}") from None
    if number < lowest or (highest is not None and number > highest):
        upper = "" if highest is None else f" to {highest}"
        raise LaunchError(
            f"{name}={number} is outside {lowest}{upper}{reason}; variables of two launches are mixed: unset them and "
            "start again"
        )
    return number


def _port(environ: Mapping[str, str]) -> int:
    return _whole_number(environ, "MASTER_PORT", lowest=1, highest=65_535, because="a TCP port")


def node_name(environ: Mapping[str, str] = os.environ) -> str:
    """This machine's name, as Slurm has it where it started the process."""
    return environ.get("SLURMD_NODENAME") or socket.gethostname()


def _restart_count(environ: Mapping[str, str]) -> int:
    for name in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"):
        if environ.get(name):
            return _whole_number(environ, name)
    return 0


def placement_table(rows: Iterable[tuple[int, str, str]]) -> str:
    """The table `rank  host  device` of (rank, host, device) rows, sorted by rank."""
    cells = [("rank", "host", "device"), *((str(rank), host, device) for rank, host, device in sorted(rows))]
    return "\n".join(aligned(cells, "><", rule=True))


def planned_device(precision: str, environ: Mapping[str, str] = os.environ) -> str:
    """The type of device that a run started here would use, "cuda" or "cpu".

    float16 is for GPUs alone: who asks for it on a machine without one plans for another machine.
    """
    if precision == "float16":
        return "cuda"
    import torch

    return "cuda" if torch.cuda.is_available() and environ.get("DS_ACCELERATOR") != "cpu" else "cpu"
