"""A folder that appears whole or not at all: written aside, flushed, renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spe_dist.errors import CheckpointError

SPARE_BYTES = 16 << 20


def check_space(folder: Path, needed_bytes: int) -> None:
    """CheckpointError where the disk of `folder` has no room for `needed_bytes`."""
    existing = next(p for p in [folder.absolute(), *folder.absolute().parents] if p.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes + SPARE_BYTES:
        raise CheckpointError(
            f"{existing} has {free / 1e6:,.0f} MB free, but writing {folder} takes {needed_bytes / 1e6:,.0f} MB; "
            "make room or choose another place"
        )


def check_free_name(output: Path, overwrite: bool, marker: str) -> None:
    """CheckpointError where writing `output` would destroy something.

    An empty folder may be filled. With `overwrite` a folder is replaced only if it holds the file `marker`, that is,
    if it is an earlier export and not somebody's other work.
    """
    if not output.exists() and not output.is_symlink():
        return
    if not output.is_dir() or output.is_symlink():
        raise CheckpointError(f"{output} exists and is no folder; choose another OUTPUT")
    if not any(output.iterdir()):
        return
    if not overwrite:
        raise CheckpointError(f"{output} exists; choose another OUTPUT, or give --overwrite to replace an export")
    if not (output / marker).exists():
        raise CheckpointError(f"{output} is no earlier export (no {marker} in it): not replaced; choose another OUTPUT")


def check_free_file(file: Path, overwrite: bool) -> None:
    """CheckpointError where writing `file` would destroy something."""
    if file.is_dir() or (file.exists() and not overwrite):
        raise CheckpointError(f"{file} exists; choose another file, or give --overwrite")


@contextmanager
def written_whole(output: Path) -> Iterator[Path]:
    """A temporary folder that becomes `output` when the block ends well, and vanishes when it does not."""
    output = output.absolute()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".writing", dir=output.parent))
    except OSError as error:
        raise CheckpointError(f"cannot write beside {output}: {error.strerror}; choose another OUTPUT") from None
    try:
        mask = _umask()
        temporary.chmod(0o777 & ~mask)
        yield temporary
        for file in sorted(temporary.rglob("*")):
            file.chmod(0o666 & ~mask)  # safetensors writes files that nobody else may read
            _flush(file)
        _flush(temporary)
        _swap(temporary, output)
        _flush(output.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _swap(temporary: Path, output: Path) -> None:
    if not output.exists():
        os.rename(temporary, output)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".old", dir=output.parent))
    os.rename(output, old / output.name)
    try:
        os.rename(temporary, output)
    except OSError:
        os.rename(old / output.name, output)
        old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)


def _flush(path: Path) -> None:
    with suppress(OSError):  # some file systems refuse to open a folder for it
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value
