"""How every command of this project ends: its exit status, and one line for an error that the user can mend."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Callable

from spe_dist.errors import SpeError

USER_ERROR, STOPPED, INTERRUPTED = 2, 75, 130  # STOPPED: a run that was asked to stop and has saved


def stopped_status() -> int:
    """STOPPED, for a rank that has saved with all others; from here on it ignores SIGTERM.

    A launcher takes the first rank that leaves with a status other than 0 for a failure and terminates the rest. Those
    have saved too and are only tearing down Python: dying of the signal, they would give the run another status.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return STOPPED


def run_command(
    command: Callable[[], int | None],
    errors: tuple[type[Exception], ...] = (SpeError,),
    interrupted: str = "interrupted",
) -> int:
    """Run a command and return its exit status: its own (none: 0), or 2 for one of `errors`, or 130 for Ctrl-C.

    interrupted: what is said then. Where the reader of its output leaves early (`... | head`) it ends quietly with 0.
    What an output cannot encode, such as the name of a file that is no UTF-8, is written with backslashes; where
    standard output is closed, nothing is said.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = command() or 0
        _flush()
    except BrokenPipeError:
        _drop_output()
        return 0
    except errors as error:
        try:
            _flush()
        except OSError:  # the error matters more
            _drop_output()
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _drop_output()
        print("error: no space is left where the output goes; free some, or write elsewhere", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return INTERRUPTED
    return status


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _drop_output() -> None:
    """Send what standard output still holds nowhere: writing it would fail again when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
