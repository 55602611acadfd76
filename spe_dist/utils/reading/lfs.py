"""Git LFS pointers: small texts that stand in a clone for large files which were not fetched."""

from __future__ import annotations

from pathlib import Path

_BEGIN = b"version https://git-lfs.github.com/spec/"


def is_pointer(begin: bytes) -> bool:
    """Whether a file that begins with these bytes is a pointer."""
    return begin.startswith(_BEGIN)


def pointer_fault(path: Path) -> str | None:
    """What is wrong with a pointer and what to do, in one line; None for all other files."""
    try:
        with open(path, "rb") as file:
            begin = file.read(len(_BEGIN))
    except OSError:
        return None  # whoever reads it says so
    return fault(path) if is_pointer(begin) else None


def fault(path: Path | str) -> str:
    """What is wrong with a file that is a pointer, and what to do."""
    return f"{path} is a Git LFS pointer, not the file itself; run `git lfs pull` in its clone, or download the file"
