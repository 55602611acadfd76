"""One start of a run: its processes, from fork or launcher to their end."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from spe_dist.distributed.ports import free_port
from tests.faults import injection
from tests.faults.injection import Plan

ROOT = Path(__file__).resolve().parents[2]
INJECT = ROOT / "tests" / "faults" / "inject"
# Variables of a launcher, job or shell that the harness runs in itself must not reach its runs.
NOT_PASSED_ON = ("RANK", "WORLD_SIZE", "LOCAL_", "MASTER_", "SLURM_", "SBATCH_", "SPE_", "TORCHELASTIC_", "CROSS_")
IMPORTS_OF_RANKS = (
    "deepspeed.runtime.zero.muon.muon_optimizer",
    "spe_dist.finetuning.run",
    "spe_dist.pretraining.run",
    "torch.utils.tensorboard",
)
POLL_S = 0.02
SERVERS: set[int] = set()  # process ids of daemons that stay between cases


class FaultError(AssertionError):
    """The run did not behave as it must."""


@dataclass
class Attempt:
    """A start. `statuses` has the exit status of each process that was waited for: ranks by number, or the launcher."""

    folder: Path  # logs and notes
    began: float
    processes: dict[str, Any]  # name -> something with pid and poll() -> int | None
    statuses: dict[str, int] = field(default_factory=dict)
    ended: float = 0.0

    def poll(self) -> bool:
        """Whether all processes have ended."""
        for name, process in self.processes.items():
            if name not in self.statuses and (status := process.poll()) is not None:
                self.statuses[name] = status
                self.ended = time.time()
        return len(self.statuses) == len(self.processes)

    def wait(self, timeout_s: float, each: Callable[[], None] | None = None) -> dict[str, int]:
        """Wait for the end of all processes; `each` is called again and again meanwhile. FaultError when they hang."""
        deadline = time.monotonic() + timeout_s
        while not self.poll():
            if each is not None:
                each()
            if time.monotonic() > deadline:
                raise FaultError(f"still running after {timeout_s:g} s; ended so far: {self.statuses or 'none'}")
            time.sleep(POLL_S)
        return self.statuses

    def notes(self, name: str) -> dict[int, list[dict[str, Any]]]:
        """Lines that ranks have written under this name, by rank."""
        found = {}
        for file in sorted(self.folder.glob(f"{name}.*")):
            if lines := file.read_text().splitlines():
                found[int(file.suffix[1:])] = [json.loads(line) for line in lines]
        return found

    def pids(self) -> dict[int, int]:
        """Process ids of the ranks that have started."""
        return {rank: notes[-1]["pid"] for rank, notes in self.notes("pid").items()}

    def signal(self, rank: int, number: int) -> None:
        """Send a signal to a rank, if it is there."""
        if (pid := self.pids().get(rank)) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def text(self) -> str:
        """What all processes have printed."""
        return "\n".join(file.read_text(errors="replace") for file in sorted(self.folder.glob("*.log")))

    def end(self) -> None:
        """Kill what still runs."""
        for process in self.processes.values():
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGCONT)
                    os.kill(process.pid, signal.SIGKILL)
        for process in self.processes.values():
            while process.poll() is None:
                time.sleep(POLL_S)


class Forked:
    """A forked rank."""

    def __init__(self, pid: int) -> None:
        self.pid, self.status = pid, None

    def poll(self) -> int | None:
        """Its exit status, minus the signal that ended it; None while it runs."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status


def fork_ranks(program: str, arguments: Sequence[str], ranks: int, folder: Path, plan: Plan) -> Attempt:
    """Start ranks as forks of this process, which has their imports; nobody ends the others when one dies."""
    port, began, group, processes = free_port(), time.time(), 0, {}
    for rank in range(ranks):
        place = {"RANK": rank, "WORLD_SIZE": ranks, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": ranks}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        pid = os.fork()
        if pid == 0:
            _be_rank(program, arguments, rank, group, {k: str(v) for k, v in place.items()}, folder, plan)
        group = group or pid
        with contextlib.suppress(OSError):
            os.setpgid(pid, group)  # also by the rank itself: whoever comes first
        processes[f"rank {rank}"] = Forked(pid)
    return Attempt(folder, began, processes)


def _be_rank(
    program: str, arguments: Sequence[str], rank: int, group: int, place: Mapping[str, str], folder: Path, plan: Plan
) -> None:
    status = 1
    try:
        with contextlib.suppress(OSError):
            os.setpgid(0, group)
        log = os.open(folder / f"rank_{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for number in (1, 2):
            os.dup2(log, number)
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        os.environ.update(place)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        injector = injection.install(plan, rank)
        main = _main_of(program)
        status = main(list(arguments))
        injector.write_counts()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _main_of(program: str) -> Callable[[list[str]], int]:
    from spe_dist import finetune, pretrain

    return {"pretrain": pretrain, "finetune": finetune}[program].main


def import_for_ranks() -> None:
    """Import once what every rank would; forked ranks have it then. Before any thread starts.

    Two things are left out of forked ranks, since they take most of so short a run: the picture of the curves is empty,
    and what was loaded here is not looked through by the garbage collector. Ranks under launchers do both.
    """
    import torch

    from spe_dist.distributed.engine import import_deepspeed

    torch.set_num_threads(1)
    import_deepspeed("cpu")
    for name in IMPORTS_OF_RANKS:
        importlib.import_module(name)
    from spe_dist.training import curves
    from spe_dist.utils import memory

    injection.replace_by_name(curves.draw_panels, _empty_picture)
    injection.replace_by_name(memory.freeze_garbage_collector, gc.freeze)
    gc.collect()
    gc.freeze()


def _empty_picture(folder: Path, *_: Any) -> Path:
    (folder / "curves.png").write_bytes(b"")
    return folder / "curves.png"


def launch_command(launcher: str, program: str, ranks: int) -> list[str]:
    """What a user types before the program's own options, on one machine."""
    script = str(ROOT / "spe_dist" / f"{program}.py")
    if launcher == "deepspeed":
        return [_installed("deepspeed"), "--num_gpus", str(ranks), "--master_port", str(free_port()), script]
    words = [_installed("torchrun"), "--nproc_per_node", str(ranks), "--master_port", str(free_port())]
    return [*words, "--", script]


def _installed(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def launched_environment(folder: Path, plan: Plan) -> dict[str, str]:
    """The environment of a run that a launcher starts; the plan is found by it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_PASSED_ON)}
    plan_file = folder / "plan.json"
    plan_file.write_text(plan.to_json())
    own = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(INJECT), str(ROOT)]),
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
        injection.VARIABLE: str(plan_file),
    }
    return {**kept, **own}


def launch(commands: Mapping[str, Sequence[str]], folder: Path, environment: Mapping[str, str]) -> Attempt:
    """Start commands, each in a session of its own, with a log by its name."""
    began, processes = time.time(), {}
    for name, command in commands.items():
        with (folder / f"{name}.log").open("a") as log:
            processes[name] = subprocess.Popen(
                list(command),
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    return Attempt(folder, began, processes)


def descendants() -> list[psutil.Process]:
    """Processes below this one that still run, orphans of its runs among them."""
    found = psutil.Process().children(recursive=True)
    return [p for p in found if p.pid not in SERVERS and p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def adopt_orphans() -> None:
    """Have processes whose parent dies become children of this one, so that they are found (Linux)."""
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def reap() -> None:
    """Collect orphans that have ended."""
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() == psutil.STATUS_ZOMBIE:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(process.pid, os.WNOHANG)
