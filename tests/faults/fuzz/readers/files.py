"""Sound files for readers to be given, and what a generator reads."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

TEXT = "Ada Lovelace wrote code. She lived in London, by the Thames.\n\nZürich is big, “yes”.\n" * 3


def consumed(items: Iterable[Any]) -> None:
    deque(items, maxlen=0)


def file_of(name: str, content: str | bytes) -> Callable[[Path], Path]:
    def prepare(folder: Path) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return prepare


def copy_of(made: Path, name: str) -> Callable[[Path], Path]:
    """A copy of a folder, in which the file `name` is damaged."""

    def prepare(folder: Path) -> Path:
        shutil.copytree(made, folder, dirs_exist_ok=True)
        (folder / "SHA256SUMS").unlink(missing_ok=True) if name != "SHA256SUMS" else None
        return folder / name

    return prepare
