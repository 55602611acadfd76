"""A Slurm of two virtual nodes on this machine, started once for the tests of this folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from project import ROOT

from tests.slurm.stand_in import write_package, write_program, write_scripts

LOCAL_SLURM = ROOT / "tests" / "slurm" / "local_slurm.sh"
# Variables of a job or environment that pytest itself may run in must not reach the jobs.
NOT_PASSED_ON = (
    "SLURM_",
    "SBATCH_",
    "SPE_PYTHON",
    "SPE_HOME",
    "OMP_NUM_THREADS",
    "MASTER_",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
)


def wait_until(condition: Callable[[], Any], what: Callable[[], str], timeout_s: float) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"after {timeout_s:g} s: {what()}"
        time.sleep(0.1)
    return value


@dataclass
class Job:
    """A submitted job: its number, its log and what Slurm says of it."""

    cluster: Cluster
    number: str
    log: Path

    def field(self, name: str) -> str:
        shown = self.cluster.run("scontrol", "show", "job", self.number, "--oneliner")
        return next((word.split("=", 1)[1] for word in shown.split() if word.startswith(f"{name}=")), "")

    @property
    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def wait_for(self, condition: Callable[[], Any], timeout_s: float = 120.0) -> Any:
        """Wait for the condition; a failure shows the job's state and log."""
        return wait_until(condition, lambda: f"job {self.number} is {self.field('JobState')}\n{self.text}", timeout_s)

    def wait_for_state(self, *states: str, timeout_s: float = 120.0) -> str:
        return self.wait_for(lambda: (state := self.field("JobState")) in states and state, timeout_s)

    def start_again(self) -> None:
        """A requeued job waits for two minutes before it may start: not here."""
        self.wait_for_state("PENDING")
        time.sleep(2)  # Slurm revokes the first start's credential by whole seconds; within the same one none works
        self.cluster.run("scontrol", "update", f"JobId={self.number}", "StartTime=now")


@dataclass
class Cluster:
    environment: dict[str, str]

    def run(self, *command: str, folder: Path | None = None, extra: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**self.environment, **(extra or {})},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def fails(self, *command: str, folder: Path | None = None, extra: dict[str, str] | None = None) -> str:
        """What a command prints that must end with a status above 0."""
        environment = {**self.environment, **(extra or {})}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode > 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def wait_until_empty(self, timeout_s: float = 60.0) -> None:
        """Return when no job waits or runs."""
        wait_until(lambda: not self.run("squeue", "--noheader"), lambda: self.run("squeue"), timeout_s)

    def lose(self, node: str) -> None:
        """A node fails: its daemon and all that runs on it are gone, and Slurm has noticed."""
        self._daemon(node).kill()
        for process in psutil.process_iter(["environ"]):  # None where a process ends meanwhile
            if (process.info["environ"] or {}).get("SLURMD_NODENAME") == node:
                process.kill()
        self.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=lost")

    def bring_back(self, node: str) -> None:
        """The node is repaired."""
        self.run("slurmd", "-f", self.environment["SLURM_CONF"], "-N", node)
        wait_until(
            lambda: (
                self.run("sinfo", "--noheader", "--Node", f"--nodes={node}", "--format=%T").split()[0]
                in ("idle", "mixed", "allocated")
            ),
            lambda: self.run("sinfo"),
            60,
        )

    def _daemon(self, node: str) -> psutil.Process:
        file = Path(self.environment["LOCAL_SLURM_DIR"]) / "run" / f"slurmd.{node}.pid"
        return psutil.Process(int(file.read_text()))

    def submit(self, folder: Path, *words: str, **variables: str) -> Job:
        """`sbatch WORDS...` from `folder`, with more environment variables; the log is slurm-N.out there."""
        number = self.run("sbatch", "--parsable", *words, folder=folder, extra=variables)
        return Job(self, number, folder / f"slurm-{number}.out")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    if os.geteuid() != 0:
        pytest.skip("starts Slurm's daemons: needs root")
    if shutil.which("slurmctld") is None and shutil.which("apt-get") is None:
        pytest.skip("Slurm is not installed and there is no apt-get to install it")
    folder = Path(tempfile.mkdtemp(prefix="spe-slurm-"))
    folder.chmod(0o755)  # munge wants its socket to be reachable by all users, which pytest's own folders are not
    environment = {name: value for name, value in os.environ.items() if not name.startswith(NOT_PASSED_ON)}
    environment |= {"LOCAL_SLURM_DIR": str(folder), "SLURM_CONF": str(folder / "slurm.conf")}
    environment["PREFLIGHT"] = "0"  # but for the tests of it
    environment["PATH"] += ":/usr/sbin:/sbin"
    try:
        started = subprocess.run([LOCAL_SLURM, "start"], env=environment, capture_output=True, text=True, timeout=300)
        assert started.returncode == 0, started.stdout + started.stderr
        yield Cluster(environment)
    finally:
        subprocess.run([LOCAL_SLURM, "stop"], env=environment, timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def _no_job_is_left(cluster: Cluster) -> Iterator[None]:
    yield
    cluster.run("scancel", "--full", "--signal=KILL", "--user=root")
    cluster.wait_until_empty()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose trainings are the stand-in."""
    folder = tmp_path_factory.mktemp("checkout")
    write_package(folder)
    write_scripts(folder / "slurm")
    write_program(folder / ".venv" / "bin" / "python", f'exec "{sys.executable}" "$@"')
    return folder
