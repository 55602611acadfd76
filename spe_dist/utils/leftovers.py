"""What killed runs leave on a machine: found where no process uses it any more, and removed at the next start.

Only what belongs to this user is looked at, and only processes of this machine that may be looked at count.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

PROCESSES = Path("/proc")
SHARED_MEMORY = Path("/dev/shm")
BUFFERS = "deepspeed_allreduce_buffer_*"  # of DeepSpeed's CPU all-reduce, 69 MB each
LAUNCHER_FOLDERS = "torchelastic_*"  # torchrun's logs and error files, below the folder of temporary files
YOUNG_S = 60.0  # a launcher may not have started its ranks yet


def unused_buffers(folder: Path | None = None) -> list[Path]:
    """Buffers in shared memory that no live process uses."""
    files = [file for file in (folder or SHARED_MEMORY).glob(BUFFERS) if is_ours(file)]
    return sorted(set(files) - in_use(files))


def unused_launcher_folders(folder: Path | None = None) -> list[Path]:
    """Folders of launchers that have gone: no process was started with a file in them."""
    folder = folder or Path(tempfile.gettempdir())
    found = {path for path in folder.glob(LAUNCHER_FOLDERS) if path.is_dir() and is_ours(path)}
    found = {path for path in found if _age_s(path) > YOUNG_S}
    if not found:
        return []
    for variables in _environments():
        found -= {path for path in found if os.fsencode(f"{path}/") in variables}
    return sorted(found)


def remove_leftovers() -> None:
    """Remove both, in silence; to be called once a start and machine."""
    for path in (*unused_buffers(), *unused_launcher_folders()):
        with contextlib.suppress(OSError):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def in_use(files: Iterable[Path]) -> set[Path]:
    """Those of the files that a process of this machine has open or mapped, as far as we may look."""
    wanted = {str(file): file for file in files}
    used: set[Path] = set()
    if not wanted:
        return used
    for process in PROCESSES.glob("[0-9]*"):
        used |= {wanted[name] for name in _files_of(process) if name in wanted}
    return used


def is_ours(path: Path) -> bool:
    """Whether we may judge: of other users' processes we cannot see what they use."""
    try:
        return os.geteuid() == 0 or path.lstat().st_uid == os.geteuid()
    except OSError:
        return False


def _files_of(process: Path) -> set[str]:
    """Names of the files that a process has open or mapped; empty where it has gone or is another user's."""
    names = set()
    with contextlib.suppress(OSError):
        names = {line.split(maxsplit=5)[-1].strip() for line in (process / "maps").read_text().splitlines()}
        for link in (process / "fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                names.add(os.readlink(link))
    return names


def _environments() -> Iterator[bytes]:
    """The variables that each process was started with."""
    for process in PROCESSES.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            yield (process / "environ").read_bytes()


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0
