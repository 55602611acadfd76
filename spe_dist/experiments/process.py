"""One command that runs in the background: its log, its end, and how it is asked to stop.

A training run is asked by the file STOP in its output folder (spe_dist/distributed/stop.py), which works under every
launcher, and saves before it leaves; other commands get an interrupt. What does not leave in time is ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping

from spe_dist.errors import ConfigError
from spe_dist.experiments.pieces import Piece
from spe_dist.experiments.record import LOG_FILE
from spe_dist.utils.commands import command_variables, kill_with_descendants
from spe_dist.utils.run_files import STOP_FILE

STOP_WAIT_S = 120.0


class Process:
    """A started piece. Its output goes to log.txt in its folder, after that of earlier attempts."""

    def __init__(self, piece: Piece, environment: Mapping[str, str]):
        self.piece = piece
        self.log = piece.folder / LOG_FILE
        self.began = time.monotonic()
        self._asked_at: float | None = None
        command = [part.replace("{port}", _free_port()) if "{port}" in part else part for part in piece.command()]
        piece.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            log.write(f"$ {' '.join(command)}\n".encode())
            log.flush()
            try:
                self._child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=dict(environment),
                    start_new_session=True,  # Ctrl-C reaches this runner alone, which stops pieces in their own way
                )
            except OSError as error:
                raise ConfigError(f"{command[0]} cannot be started: {error.strerror}; check the launcher") from None
        self.id = self._child.pid

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def poll(self) -> int | None:
        """Exit status, None while it runs. Goes on asking where a stop was asked for."""
        status = self._child.poll()
        if status is None and self._asked_at is not None:
            self._write_stop_file()
            if time.monotonic() - self._asked_at > STOP_WAIT_S:
                self.kill()
        return status

    def ask_to_stop(self) -> None:
        """Once: the stop file for training runs; an interrupt where no launcher stands between."""
        self._asked_at = time.monotonic()
        self._write_stop_file()
        if not self.piece.launcher:
            with contextlib.suppress(ProcessLookupError):
                self._child.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End it and all that it started, at once."""
        kill_with_descendants(self.id)
        with contextlib.suppress(ProcessLookupError, PermissionError):  # what another of them started, and left behind
            os.killpg(self.id, signal.SIGKILL)
        self._child.wait()

    def _write_stop_file(self) -> None:
        if self.piece.kind in ("pretrain", "finetune") and self.piece.result_folder.is_dir():
            with contextlib.suppress(OSError):
                (self.piece.result_folder / STOP_FILE).touch()


def environment(slot: int, slots: int, devices: tuple[str, ...]) -> dict[str, str]:
    """Variables of a piece: this Python's commands first, its share of the cores, one device where they are dealt."""
    own = dict(os.environ)
    own |= command_variables()
    own.setdefault("PYTHONUNBUFFERED", "1")
    if slots > 1:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        own.setdefault("OMP_NUM_THREADS", str(max(1, cores // slots)))
    if devices:
        own["CUDA_VISIBLE_DEVICES"] = devices[slot]
    return own


def _free_port() -> str:
    from spe_dist.distributed.ports import free_port

    return str(free_port())
