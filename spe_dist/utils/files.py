"""What several rooms do with files."""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import suppress
from pathlib import Path

STANDARD_OUTPUT = 1  # its file descriptor


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def shared_name(source: str) -> str:
    """What others are told a model or tokenizer came from: a hub name as it is, of a path the last part alone."""
    path = Path(source).expanduser()
    is_path = path.is_absolute() or source.startswith(".") or len(path.parts) > 2 or path.exists()
    return path.name if is_path else source


def can_be_replaced(path: Path) -> bool:
    """Whether a file that was written aside may take this name: a file's or a free one, no link, device or pipe.

    Those are written to as they are: /dev/stdout is a link, and a link is somebody's wish to have the file elsewhere.
    """
    return not path.is_symlink() and (path.is_file() or not path.exists())


def goes_to_stream(path: Path) -> bool:
    """Whether what is written to a path is passed on: to a device, a pipe, or to standard output, also where that is
    redirected to a file.
    """
    try:
        status = path.stat()
    except (OSError, ValueError):
        return False
    if not stat.S_ISREG(status.st_mode):
        return not stat.S_ISDIR(status.st_mode)
    with suppress(OSError):  # standard output may be closed
        return path.is_symlink() and os.path.samestat(status, os.fstat(STANDARD_OUTPUT))
    return False
