"""A folder of fetched files that never grows beyond a limit, shared by all processes of a node.

Files are kept by the SHA-256 of their content, so that a block that two runs or two URLs have in common is there once.
What was used longest ago goes first. A process may be killed at any moment: a file takes its name when it is whole, an
unfinished one is unlocked with its writer and written again, and whoever reads compares the checksum.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from spe_dist.errors import DataError

DEFAULT_CACHE_GIB = 20.0
UNFINISHED = ".part"
USAGE_FILE = "usage"  # bytes that are taken or promised, as a number
KEPT_SHARE = 0.9  # of the limit, after files were removed: they are then not looked through for every new one
POLL_S = 0.01


class FileCache:
    """Files by checksum, at most `limit_bytes` altogether. Picklable; holds nothing open."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes

    def path(self, sha256: str) -> Path:
        """Where a file is, if it is there."""
        return self.folder / sha256[:2] / sha256

    def read(self, sha256: str) -> bytes | None:
        """A small file's content as it lies there, unchecked; it counts as used now. None where it is not there."""
        try:
            data = self.path(sha256).read_bytes()
            os.utime(self.path(sha256))
        except FileNotFoundError:
            return None
        return data

    def remove(self, sha256: str) -> None:
        """Remove a file, because it is damaged."""
        self.path(sha256).unlink(missing_ok=True)

    def fill(self, sha256: str, size: int, write: Callable[[IO[bytes]], None], wait_s: float | None = None) -> bool:
        """Have `write` write a file of `size` bytes, unless it is there; whether it is there now.

        One process writes a file at a time. Where another one does, wait `wait_s` seconds at most; None: not at all.

        Raises:
            DataError: it is larger than the cache.
            OSError: it cannot be written; what `write` raises is passed on.
        """
        final = self.path(sha256)
        if size > self.limit_bytes:
            raise DataError(
                f"a file of {size / 2**30:.2f} GiB does not fit into a cache of {self.limit_bytes / 2**30:.2f} GiB; "
                f"raise cache_gib"
            )
        final.parent.mkdir(parents=True, exist_ok=True)
        part = final.with_name(final.name + UNFINISHED)
        with _locked(part, wait_s) as file:
            if file is None:
                return False
            if final.is_file():
                part.unlink(missing_ok=True)
                return True
            self._count(size, lambda: os.truncate(part, size))
            try:
                write(file)
                file.flush()
                self._count(0, lambda: os.replace(part, final))
            except BaseException:
                self._count(-size, lambda: part.unlink(missing_ok=True))
                raise
            return True

    def used_bytes(self) -> int:
        """Bytes that the files take, counted one by one."""
        return sum(size for _, size, _ in self._files())

    def _count(self, size: int, change: Callable[[], None]) -> None:
        """Count `size` bytes more, making space for them, and make the change of files, before anybody else counts."""
        with _locked(self.folder / USAGE_FILE, wait_s=60.0) as file:
            if file is None:  # its holder is stopped; files are counted one by one when it goes on
                change()
                return
            text = file.read(32)
            used = int(text) if text.isdigit() else None
            if used is None or used + size > self.limit_bytes:
                used = self._make_space(size)
            change()
            file.seek(0)
            file.truncate()
            file.write(b"%d" % max(0, used + size))
            file.flush()

    def _make_space(self, size: int) -> int:
        """Remove what was used longest ago until `size` bytes more fit well; the bytes that are left."""
        files = sorted(self._files())
        used = sum(size_ for _, size_, _ in files)
        if used + size <= self.limit_bytes:
            return used
        for _, taken, path in files:
            if used + size <= KEPT_SHARE * self.limit_bytes:
                break
            if path.endswith(UNFINISHED):
                with _locked(Path(path), None) as unused:
                    if unused is None:
                        continue  # somebody writes it
                    Path(path).unlink(missing_ok=True)
            else:
                Path(path).unlink(missing_ok=True)
            used -= taken
        return used

    def _files(self) -> Iterator[tuple[int, int, str]]:
        """(time of last use in ns, bytes, path) of every file."""
        for inner in self.folder.iterdir() if self.folder.is_dir() else ():
            if len(inner.name) != 2:
                continue
            with suppress(FileNotFoundError, NotADirectoryError):
                for entry in os.scandir(inner):
                    with suppress(FileNotFoundError):
                        status = entry.stat()
                        yield status.st_mtime_ns, status.st_size, entry.path


@contextmanager
def _locked(path: Path, wait_s: float | None) -> Iterator[IO[bytes] | None]:
    """The file at `path`, made where it is missing, locked against other processes and threads; None: it stays locked.

    The lock ends with its holder. A file that was renamed or removed meanwhile is not the one at `path`: try again.
    """
    file = _lock(path, time.monotonic() + (wait_s or 0.0))
    try:
        yield file
    finally:
        if file is not None:
            fcntl.flock(file, fcntl.LOCK_UN)  # closing it would not do where a process was forked meanwhile
            file.close()


def _lock(path: Path, deadline: float) -> IO[bytes] | None:
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
            file.close()
        except FileNotFoundError:
            file.close()
        except BlockingIOError:
            file.close()
            if time.monotonic() >= deadline:
                return None
            time.sleep(POLL_S)
        except BaseException:
            file.close()
            raise
