"""Slurm's jobs of a build: which ones work on a folder, and whether they still do."""

from __future__ import annotations

import getpass
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from spe_dist.data.build.plan import SCRATCH_FOLDER
from spe_dist.errors import DataError, LaunchError
from spe_dist.utils.files import write_atomically

_JOBS_NAME = "jobs.json"
_TIMEOUT_S = 60.0


def record_jobs(output: Path, jobs: Sequence[str]) -> None:
    """Note the ids of the jobs that work on a build."""
    write_atomically(output / SCRATCH_FOLDER / _JOBS_NAME, json.dumps(list(jobs)))


def refuse_active_jobs(output: Path) -> None:
    """Check that no job of an earlier call still works on a build.

    Raises:
        DataError: one does, or nobody here can tell.
    """
    path = output / SCRATCH_FOLDER / _JOBS_NAME
    if not path.is_file():
        return
    jobs = json.loads(path.read_bytes())
    if shutil.which("squeue") is None:
        raise DataError(
            f"{output} was being made by the Slurm jobs {', '.join(jobs)}, and there is no squeue here to see whether "
            "they still run; type the command on a login node of the cluster, or choose another output folder"
        )
    active = active_jobs(jobs)
    if active:
        raise DataError(
            f"{output} is being made by the Slurm jobs {', '.join(active)}; wait for them, or scancel them and type "
            "the command again"
        )


def active_jobs(jobs: Sequence[str]) -> list[str]:
    """Those of the jobs, or job arrays, that wait or run.

    Raises:
        LaunchError: Slurm's controller does not answer.
    """
    command = ["squeue", "--noheader", "--format=%F", f"--user={getpass.getuser()}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise LaunchError(f"squeue gives no answer for {_TIMEOUT_S:g} s; is Slurm's controller down?") from None
    if done.returncode:
        raise LaunchError(f"squeue failed: {done.stderr.strip() or done.stdout.strip()}")
    found = set(done.stdout.split())
    return [job for job in jobs if job in found]
