"""How every command of this project ends: its exit status, and one line for an error that the user can mend."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable

from spe_dist.errors import SpeError

USER_ERROR, INTERRUPTED = 2, 130


def run_command(
    command: Callable[[], int | None],
    errors: tuple[type[Exception], ...] = (SpeError,),
    interrupted: str = "interrupted",
) -> int:
    """Run a command and return its exit status: its own (none: 0), or 2 for one of `errors`, or 130 for Ctrl-C.

    interrupted: what is said then. Where the reader of its output leaves early (`... | head`) it ends quietly with 0.
    What an output cannot encode, such as the name of a file that is no UTF-8, is written with backslashes.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = command() or 0
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more to say at the end
        return 0
    except errors as error:
        sys.stdout.flush()
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return INTERRUPTED
    return status
