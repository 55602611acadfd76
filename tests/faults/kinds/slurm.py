"""Jobs of a Slurm with two virtual nodes on this machine (tests/slurm/local_slurm.sh), started for the first one."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from tests.faults.attempts import ROOT, SERVERS, Attempt, FaultError, descendants, launched_environment
from tests.faults.case import RUN_S, Case, Skipped
from tests.faults.injection import Plan
from tests.faults.kinds.drawing import any_setup, draw_trap, kind, wait_until
from tests.faults.kinds.launchers import ANY
from tests.faults.runs import Setup

SCRIPT = ROOT / "tests" / "slurm" / "local_slurm.sh"
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
_cluster: list[dict[str, str]] = []  # the environment of the one that runs


class SlurmJob:
    """A submitted job as a process: its status is its exit code once Slurm has it as ended."""

    def __init__(self, number: str, environment: dict[str, str]) -> None:
        self.number, self.environment = number, environment
        self.pid = os.getpid()  # nothing to signal: see end()
        self._looked, self._status = 0.0, None

    def field(self, name: str) -> str:
        shown = self.run("scontrol", "show", "job", self.number, "--oneliner")
        return next((word.split("=", 1)[1] for word in shown.split() if word.startswith(f"{name}=")), "")

    def run(self, *command: str) -> str:
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60).stdout.strip()

    def poll(self) -> int | None:
        if self._status is None and time.monotonic() - self._looked > 0.3:
            self._looked = time.monotonic()
            if self.field("JobState") in ENDED:
                self._status = int(self.field("ExitCode").partition(":")[0] or 0)
        return self._status


class SlurmAttempt(Attempt):
    def end(self) -> None:
        for job in self.processes.values():
            if job.poll() is None:
                job.run("scancel", "--full", "--signal=KILL", job.number)
                job.run("scancel", job.number)


def cluster() -> dict[str, str]:
    """The environment in which sbatch finds the cluster. Skipped where it cannot be had."""
    if _cluster:
        return _cluster[0]
    if os.geteuid() != 0:
        raise Skipped("Slurm's daemons need root")
    if shutil.which("slurmctld", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        raise Skipped("Slurm is not installed (packages slurmctld, slurmd, slurm-client, munge)")
    folder = Path(tempfile.mkdtemp(prefix="spe-faults-slurm-"))
    folder.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
    environment |= {"LOCAL_SLURM_DIR": str(folder), "SLURM_CONF": str(folder / "slurm.conf")}
    environment |= {"LOCAL_SLURM_PORT": "17480", "PATH": f"{environment['PATH']}:/usr/sbin:/sbin"}
    before = {process.pid for process in descendants()}
    started = subprocess.run([SCRIPT, "start"], env=environment, capture_output=True, text=True)
    if started.returncode:
        shutil.rmtree(folder, ignore_errors=True)
        raise Skipped(f"Slurm does not start: {started.stderr.strip()}")
    SERVERS.update({process.pid for process in descendants()} - before)
    _cluster.append(environment)
    atexit.register(stop_cluster, folder)
    return environment


def stop_cluster(folder: Path) -> None:
    environment = _cluster.pop()
    subprocess.run([SCRIPT, "stop"], env=environment, capture_output=True, timeout=120)
    shutil.rmtree(folder, ignore_errors=True)


def submit(setup: Setup, arguments: list[str], folder: Path, plan: Plan) -> Attempt:
    """`sbatch slurm/PROGRAM.sh` on two nodes of one task each."""
    environment = {**launched_environment(folder, plan), **{n: v for n, v in cluster().items() if "SLURM" in n}}
    environment |= {"PATH": cluster()["PATH"], "SPE_PYTHON": sys.executable}
    command = ["sbatch", "--parsable", "--nodes=2", "--ntasks-per-node=1", f"--output={folder}/job.log"]
    command += [str(ROOT / "slurm" / f"{setup.program}.sh"), *arguments]
    began = time.time()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise FaultError(f"sbatch: {done.stderr.strip()}")
    return SlurmAttempt(folder, began, {"job": SlurmJob(done.stdout.strip(), environment)})


def under_slurm(case: Case) -> None:
    cluster()
    case.setup, case.launcher, case.starter = any_setup(case.rng), "Slurm", submit


@kind("under Slurm a rank is killed")
def kill_in_job(case: Case) -> None:
    """The job fails within a minute, and is submitted again."""
    under_slurm(case)
    attempt = case.start(draw_trap(case, case.rng.choice(["start-up", "step", "saving", "rows"])))
    case.expect_end(attempt, ANY)
    case.fired(attempt)
    case.finish()


@kind("under Slurm the job is requeued")
def requeue(case: Case) -> None:
    """The job saves, goes back into the queue and goes on by itself."""
    under_slurm(case)
    step = case.rng.randint(1, 6)
    attempt = case.start()
    job: Any = attempt.processes["job"]
    wait_until(attempt, lambda: case.steps_done() >= step or attempt.poll())
    job.run("scontrol", "requeue", job.number)
    case.fault_from_outside(f"requeued after step {step}")
    deadline = time.monotonic() + RUN_S
    while not attempt.poll() and time.monotonic() < deadline:
        if job.field("JobState") == "PENDING":  # it would wait for two minutes
            time.sleep(1.5)
            job.run("scontrol", "update", f"JobId={job.number}", "StartTime=now")
        time.sleep(0.5)
    case.expect_end(attempt, ANY, timeout_s=1, noticed_s=RUN_S)
    case.finish()


@kind("under Slurm a batch script is killed")
def kill_batch_shell(case: Case) -> None:
    """The shell that runs srun dies; the step goes with it, and the job is submitted again."""
    under_slurm(case)
    attempt = case.start()
    job: Any = attempt.processes["job"]
    wait_until(attempt, lambda: case.steps_done() >= 1 or attempt.poll())
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if any(f"job{int(job.number):05d}/slurm_script" in word for word in words):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    case.fault_from_outside("batch script killed")
    case.expect_end(attempt, ANY)
    case.finish()
