"""Who may write into a run's output folder: only its newest start.

When a node is lost, Slurm requeues the job, and the ranks of the old start may come back (a healed network, a resumed
machine) and write a checkpoint over what the new start has saved since. Each start therefore claims the folder by a
file with a token of its own, and looks before it writes whether the token is still there. SLURM_RESTART_COUNT
distinguishes the starts of one Slurm job: an older one cannot claim the folder back.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spe_dist.errors import CheckpointError
from spe_dist.utils.files import write_atomically
from spe_dist.utils.reading.files import read_up_to

OWNER_FILE = ".owner.json"
MAX_BYTES = 1 << 16


class Fence:
    """The right of one start of a run to write into its output folder. Used by rank 0 alone.

    `claim` at the start, `check` before each write that must not come from an older start.
    """

    def __init__(self, output: Path | str, environ: Mapping[str, str] = os.environ) -> None:
        self.file = Path(output) / OWNER_FILE
        self.owner: dict[str, Any] = {
            "token": secrets.token_hex(8),
            "slurm_job": environ.get("SLURM_JOB_ID", ""),
            "restart_count": int(environ.get("SLURM_RESTART_COUNT") or 0),
            "host": socket.gethostname(),
            "process": os.getpid(),
        }

    def claim(self) -> None:
        """Become the owner. Raises CheckpointError where a later start of the same Slurm job already is, and where the
        folder cannot be made or written, or its owner file not be read.
        """
        try:
            found = self._read()
        except OSError as error:
            raise CheckpointError(f"{self.file} cannot be read ({error.strerror}); remove it") from None
        if (
            found is not None
            and self.owner["slurm_job"]
            and found.get("slurm_job") == self.owner["slurm_job"]
            and _whole(found.get("restart_count")) > self.owner["restart_count"]
        ):
            raise CheckpointError(self._refusal(found))
        try:
            self._write()
        except OSError as error:
            folder = self.file.parent
            raise CheckpointError(f"output={folder} cannot be written ({error.strerror}); give another one") from None

    def _write(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.file, json.dumps(self.owner))

    def check(self) -> None:
        """Raises CheckpointError unless this start is still the owner."""
        found = self._read()
        if found is None or found.get("token") != self.owner["token"]:
            raise CheckpointError(self._refusal(found))

    def _read(self) -> dict[str, Any] | None:
        try:
            owner = json.loads(read_up_to(self.file, MAX_BYTES))
        except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
            return None
        return owner if isinstance(owner, dict) else None

    def _refusal(self, found: dict[str, Any] | None) -> str:
        if found is None:
            return f"{self.file} has gone, so this run no longer owns its output folder; start again with --resume auto"
        job = f"Slurm job {found['slurm_job']} start {found.get('restart_count')}, " if found.get("slurm_job") else ""
        return (
            f"{self.file.parent} was taken over by another start of the run ({job}process {found.get('process')} on "
            f"{found.get('host')}); this one stops without writing: leave the folder to that one, or choose another "
            "--output"
        )


def _whole(value: Any) -> int:
    """A number of starts; 0 for what is none."""
    return value if isinstance(value, int) else 0
