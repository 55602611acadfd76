"""A request to stop: signals and the file OUTPUT/STOP set a flag, the trainer looks at it at a micro-batch's end.

Ranks hear of a stop at different moments, or only some of them do, so nobody acts on its own flag: the trainer takes
the maximum over all ranks at the end of a micro-batch, and then all save and leave. The run then ends with status 75
(`spe_dist.cli.exits`), so that a script does not take a part for the whole. To every launcher that is a failure, for
which it ends the other ranks; so rank 0 alone leaves with it, after the others have left with 0.

What comes of that status (measured with deepspeed 0.19.8, torch 2.13, Slurm 22.05):

deepspeed   ends with 75 itself, and logs the command as one that "exits with return code = 75".
torchrun    ends with 1 and a report of some 20 lines that says "exitcode: 75". With --max_restarts above 0 it would
            start the run again, so rank 0 leaves with 0 there.
srun        ends with 75, the largest status of all tasks; so does the job, unless slurm/job.sh requeues it.
python      ends with 75.

What reaches the ranks (measured with the same):

deepspeed   The `deepspeed` command starts `deepspeed.launcher.launch`, which starts the ranks. Ctrl-C reaches all of
            them. A TERM sent to the `deepspeed` command alone ends that and nothing else: signal the `launch` process.
            That one answers INT and TERM only, by TERM to rank after rank and to what each has started; the next rank
            is signalled when the one before has gone or was killed after 30 s. Its status is 1 whatever theirs were.
            USR1 kills it, leaves the ranks running, and the command returns 0. The file OUTPUT/STOP needs none of this.
torchrun    INT, TERM, HUP and QUIT sent to torchrun are passed on to each rank's process group, KILL follows after 30 s
            (TORCHELASTIC_SHUTDOWN_TIMEOUT), torchrun's own status is 1. USR1 kills torchrun and leaves the ranks
            running, unless it was started with --signals-to-handle SIGTERM,SIGINT,SIGUSR1: then it is passed on too.
srun        passes USR1 on to all tasks. TERM sent to srun itself kills the step at once. `scontrol requeue`, `scancel`
            and preemption send TERM to all processes of the step, KILL follows after KillWait (30 s).
python      gets what is sent.

A launcher that signals a process group or tree also hits the loader's worker processes, whose death would fail the run
before it has saved. Processes forked from a rank therefore have these signals blocked; they end with their rank.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from types import FrameType

from spe_dist.utils.run_files import STOP_FILE

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopRequest:
    """Whether this rank was asked to stop, and by what.

    Made in the main thread it takes over SIGTERM, SIGUSR1 and SIGINT: they only set a flag, but a second SIGINT raises
    KeyboardInterrupt. A file OUTPUT/STOP asks for the same; one that is there already is not meant for this run, and
    `remove_older_file` removes it once the folder is this run's. `close` (or leaving a `with` block) gives the signals
    back.
    """

    def __init__(self, output: Path | str | None = None) -> None:
        self.file = None if output is None else Path(output) / STOP_FILE
        self._reason = ""
        self._interrupted = False
        self._previous: dict[signal.Signals, object] = {}
        self._older = self._identity()
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                self._previous[number] = signal.signal(number, self._receive)
            _shield_forks()

    @property
    def requested(self) -> bool:
        """Whether a signal came or the file is there; stays true once it was."""
        if not self._reason and self._identity() not in (None, self._older):
            self._reason = f"file {self.file}"
        return bool(self._reason)

    def remove_older_file(self) -> None:
        """Remove a file that was there before this request was made, unless somebody has made another since."""
        if self.file is not None and self._older is not None and self._identity() == self._older:
            remove_stop_file(self.file.parent)

    def _identity(self) -> tuple[int, int] | None:
        """Which file it is that asks, by inode and time; None without one."""
        try:
            status = self.file.stat() if self.file is not None else None
        except OSError:
            return None
        return None if status is None else (status.st_ino, status.st_mtime_ns)

    @property
    def reason(self) -> str:
        """Such as `SIGTERM` or `file OUTPUT/STOP`; empty where this rank was not asked (another may have been)."""
        return self._reason if self.requested else ""

    def close(self) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous.clear()
        _shielded.discard(os.getpid())

    def __enter__(self) -> StopRequest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True
        self._reason = self._reason or signal.Signals(number).name


def remove_stop_file(output: Path | str) -> bool:
    """Remove OUTPUT/STOP, so that a run that was stopped by it can go on. Returns whether it was there."""
    try:
        (Path(output) / STOP_FILE).unlink()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


_shielded: set[int] = set()  # process ids whose forks have the signals blocked
_registered = False


def _shield_forks() -> None:
    global _registered
    _shielded.add(os.getpid())
    if not _registered:
        os.register_at_fork(after_in_child=_block_in_child)
        _registered = True


def _block_in_child() -> None:
    # Blocked, not ignored: torch's loader workers install a handler of their own for SIGTERM right after the fork.
    if os.getppid() in _shielded:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
