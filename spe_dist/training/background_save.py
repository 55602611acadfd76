"""A checkpoint that is written while training goes on.

Training waits for a copy of the state in main memory only. A thread on each rank then writes, hashes, syncs and
publishes it, as `Checkpoints` does, over a process group of its own: messages of two threads in one group would answer
each other. Whatever ends the run meanwhile leaves what was whole before; the temporary folder goes with the next save.

The thread is no daemon: a rank that leaves for a fault of training ends its save first. Where another has died, the
group's connections break, and the thread ends with an error.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spe_dist.distributed.checkpoint import Checkpoints
from spe_dist.distributed.context import sendable

POLL_S = 0.05


@dataclass(frozen=True)
class Save:
    """A checkpoint that was written, and how long it took."""

    step: int
    waited_s: float  # by training: for the save before, the copy, and the writing where that was not in the background
    total_s: float
    in_background: bool


class BackgroundSave:
    """Writes one checkpoint at a time. All but the properties are collectives of the ranks' main threads."""

    def __init__(self, checkpoints: Checkpoints, timeout_s: float) -> None:
        """`timeout_s`: of the collectives of the threads."""
        own = checkpoints.context.with_own_control(timeout_s)
        self._checkpoints = Checkpoints(checkpoints.folder, checkpoints.keep, own, checkpoints.fence)
        self._context = checkpoints.context
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._step, self._began, self._waited_s, self._total_s = 0, 0.0, 0.0, 0.0

    @property
    def step(self) -> int | None:
        """The step that is being saved; None where none is."""
        return None if self._thread is None else self._step

    @property
    def running(self) -> bool:
        """Whether this rank's thread still works."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def failed(self) -> bool:
        """Whether it has ended with an error."""
        return self._error is not None

    def start(self, step: int, state: dict[str, Any], write: Callable[[Path, Any], None], began: float) -> None:
        """Begin to write the checkpoint of a step; none may be under way.

        Args:
            step: of the checkpoint.
            state: what goes into its state.json.
            write: fills its folder, given that and a process group; must need nothing that training changes.
            began: when training began to wait for it, by time.monotonic().
        """
        assert self._thread is None, "one at a time"
        self._step, self._began = step, began
        self._thread = threading.Thread(target=self._run, args=(state, write), name=f"save step {step}")
        self._waited_s = time.monotonic() - began
        self._thread.start()

    def _run(self, state: dict[str, Any], write: Callable[[Path, Any], None]) -> None:
        group = self._checkpoints.context.control
        try:
            self._checkpoints.save(self._step, state, lambda folder: write(folder, group))
        except Exception as error:  # for the main thread, which raises it
            self._error = error
        self._total_s = time.monotonic() - self._began

    def wait(self) -> Save | None:
        """Wait until all ranks have written; None where nothing is under way. Raises what a rank's thread has raised.

        A failed thread may leave those of other ranks waiting for it, so none is waited for alone.
        """
        if self._thread is None:
            return None
        began = time.monotonic()
        while True:
            running, failed = self._context.max_numbers([self.running, self.failed])
            if failed or not running:
                break
            time.sleep(POLL_S)
        self._waited_s += time.monotonic() - began
        return self.end()

    def end(self) -> Save:
        """What all ranks have agreed has ended. Raises what the first rank's thread that failed has raised."""
        assert self._thread is not None
        errors = self._context.all_gather_object(None if self._error is None else sendable(self._error))
        for rank, error in enumerate(errors):
            if error is not None:
                raise self._error if rank == self._context.rank and self._error is not None else error
        self._thread.join()
        self._thread = None
        return Save(self._step, self._waited_s, self._total_s, True)
