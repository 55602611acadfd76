"""Files and folders that appear whole or not at all, and the checks of a path before it is written to."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import secrets
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spe_dist.errors import CheckpointError
from spe_dist.utils.reading.files import open_file

STANDARD_OUTPUT = 1  # its file descriptor
SPARE_BYTES = 16 << 20
SEEN_WITHIN_S = 10.0  # after which what one machine has written is there for the others too
WRITING_SUFFIX, OLD_SUFFIX = ".writing", ".old"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, as hexadecimal digits."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def shared_name(source: str) -> str:
    """The name under which a model's or tokenizer's source is published: that of the hub, or a path's last part."""
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


@contextmanager
def atomic_file(path: Path, keep_as: Path | None = None) -> Iterator[Path]:
    """A file beside `path` to write to. It is flushed and takes the name when the block ends without an exception.

    Otherwise it is removed and `path` stays what it was. A link, device or pipe is written to as it is.

    Args:
        path: the file's final name, in a folder that exists.
        keep_as: the name to write to until the file is whole; what is written so far is then kept when the block fails.
    """
    if not can_be_replaced(path):
        yield path
        return
    aside = keep_as or path.with_name(f".{path.name}.{secrets.token_hex(4)}{WRITING_SUFFIX}")
    try:
        yield aside
        open_to_others(aside)
        flush(aside)
        os.replace(aside, path)
    finally:
        if keep_as is None:
            with suppress(OSError):
                aside.unlink()


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file that is whole or not there; text is UTF-8 with line ends as they are."""
    with atomic_file(path) as aside:
        aside.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


@contextmanager
def atomic_folder(output: Path) -> Iterator[Path]:
    """A temporary folder that becomes `output`, in place of what lies there, when the block ends without an exception.

    Otherwise it is removed.

    Raises:
        CheckpointError: nothing can be written beside `output`.
    """
    output = output.absolute()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        _remove_of_dead_writers(output)
        temporary = Path(tempfile.mkdtemp(prefix=_mark(output.name), suffix=WRITING_SUFFIX, dir=output.parent))
    except OSError as error:
        raise CheckpointError(f"cannot write beside {output}: {error.strerror}; choose another OUTPUT") from None
    try:
        temporary.chmod(0o777 & ~_umask())
        yield temporary
        for path in sorted(temporary.rglob("*")):
            open_to_others(path)
            flush(path)
        flush(temporary)
        _swap(temporary, output)
        flush(output.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def link_or_copy(path: Path, target: Path) -> None:
    """Give a file another name, or its content where the file system has no links; neither is written to afterwards."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)


def remove_unfinished(folder: Path, name: str = "*") -> None:
    """Remove what killed processes left while they wrote `name` (a pattern) in a folder; nobody may write it now."""
    for suffix in (WRITING_SUFFIX, f"~*{OLD_SUFFIX}"):
        for path in folder.glob(f".{name}.*{suffix}"):
            _remove(path)


def _remove_of_dead_writers(output: Path) -> None:
    """Remove what processes of this machine that have ended left while they wrote the folder `output`."""
    for suffix in (WRITING_SUFFIX, OLD_SUFFIX):
        for path in output.parent.glob(f".{glob.escape(output.name)}.*{suffix}"):
            host, _, process = path.name.removeprefix(f".{output.name}.").partition("~")
            number = process.partition("~")[0]
            ended = number.isdigit() and not Path(f"/proc/{number}").exists()
            if host == socket.gethostname() and ended and Path("/proc/self").exists():
                with suppress(OSError):
                    _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _mark(name: str) -> str:
    """How temporary names of `name` begin: with this machine and process."""
    return f".{name}.{socket.gethostname()}~{os.getpid()}~"


def flush(path: Path) -> None:
    """Have a file's content, or a folder's names, written to the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        if path.is_dir():  # some file systems refuse to open one
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot
            raise
    finally:
        os.close(descriptor)


def first_existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that is there; a link counts, wherever it leads."""
    return next(place for place in [path.absolute(), *path.absolute().parents] if os.path.lexists(place))


def check_output(folder: Path, name: str = "output") -> None:
    """Check that a folder can be made or written to.

    Raises:
        CheckpointError: it lies below a file, or the user may not write there. `name`: the setting that names it.
    """
    existing = first_existing(folder)
    if not existing.is_dir():
        what = "a link to nothing" if existing.is_symlink() and not existing.exists() else "not a folder"
        raise CheckpointError(f"{name}={folder} cannot be made: {existing} is {what}; choose another --{name}")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise CheckpointError(f"{name}={folder}: you may not write in {existing}; choose another --{name}")


def check_space(folder: Path, needed_bytes: int) -> None:
    """Check that a folder's disk has space.

    Raises:
        CheckpointError: it has less than `needed_bytes` free.
    """
    existing = first_existing(folder)
    free = shutil.disk_usage(existing).free
    if free < needed_bytes + SPARE_BYTES:
        raise CheckpointError(
            f"{existing} has {free / 1e6:,.0f} MB free, but writing {folder} takes {needed_bytes / 1e6:,.0f} MB; "
            "free some space or choose another place"
        )


def check_free_name(output: Path, overwrite: bool, marker: str) -> None:
    """Check that writing the folder `output` destroys nothing.

    An empty folder may be filled. With `overwrite` a folder is replaced only if it holds the file `marker`, that is,
    if it is an earlier export and not somebody's other work.

    Raises:
        CheckpointError: something would be destroyed.
    """
    if not output.exists() and not output.is_symlink():
        return
    if not output.is_dir() or output.is_symlink():
        raise CheckpointError(f"{output} exists and is not a folder; choose another OUTPUT")
    if output.samefile(os.curdir):
        raise CheckpointError(f"{output} is the current folder, which cannot be replaced; choose another OUTPUT")
    if not any(output.iterdir()):
        return
    if not overwrite:
        raise CheckpointError(f"{output} exists; choose another OUTPUT, or give --overwrite to replace an export")
    if not (output / marker).exists():
        raise CheckpointError(
            f"{output} is not an earlier export (no {marker} in it): not replaced; choose another OUTPUT"
        )


def appears(path: Path, within_s: float = SEEN_WITHIN_S) -> bool:
    """Whether a path is there, or comes within some seconds: network file systems show what is new late elsewhere."""
    deadline = time.monotonic() + within_s
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
        with suppress(OSError):  # a client may ask its server again then
            os.listdir(path.parent)
    return True


def check_free_file(file: Path, overwrite: bool) -> None:
    """Check that writing a file destroys nothing.

    Raises:
        CheckpointError: something would be destroyed.
    """
    if file.is_dir() or (file.exists() and not overwrite):
        raise CheckpointError(f"{file} exists; choose another file, or give --overwrite")


def open_to_others(path: Path) -> None:
    """Give a file that its library made for its owner alone, as safetensors does, the user's usual permissions."""
    if path.is_file() and stat.S_IMODE(path.stat().st_mode) == 0o600:
        path.chmod(0o666 & ~_umask())


def _swap(temporary: Path, output: Path) -> None:
    if not output.exists():
        os.rename(temporary, output)
        return
    old = Path(tempfile.mkdtemp(prefix=_mark(output.name), suffix=OLD_SUFFIX, dir=output.parent))
    os.rename(output, old / output.name)
    try:
        os.rename(temporary, output)
    except OSError:
        os.rename(old / output.name, output)
        old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value
