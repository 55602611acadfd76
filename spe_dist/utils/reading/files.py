"""Opening what should be a file. A pipe or a device in its place, in a folder that somebody else packed, is refused:
reading it would wait, or go on, for ever.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

from spe_dist.errors import DataError, SpeError
from spe_dist.utils.reading.lfs import pointer_fault

NO_FILE = "a pipe or device, not a file"


def open_file(path: str | Path) -> BufferedReader:
    """A file, or a link to one, for reading; never waits for the other end of a pipe.

    Raises:
        OSError: it cannot be opened, or is no file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, NO_FILE, str(path))
    except OSError:
        os.close(descriptor)
        raise
    return open(descriptor, "rb")


def read_up_to(path: str | Path, max_bytes: int) -> bytes:
    """A file's content; of one with more than `max_bytes` the first `max_bytes` + 1. Raises OSError as `open_file`."""
    with open_file(path) as file:
        return file.read(max_bytes + 1)


def check_file(path: Path, kind: type[SpeError] = DataError) -> None:
    """Check that a path which is there can be read as a file, and is not a Git LFS pointer to one.

    For paths that another library opens. What is missing is left to it.

    Raises:
        SpeError: of the class `kind`.
    """
    if found := _fault(path):
        raise kind(f"{path} {found}; copy or download it again")
    if found := pointer_fault(path):
        raise kind(found)


def _fault(path: Path) -> str | None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "is a link to nothing" if path.is_symlink() else None
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if stat.S_ISDIR(mode):
        return "is a folder, not a file"
    return None if stat.S_ISREG(mode) else f"is {NO_FILE}"
