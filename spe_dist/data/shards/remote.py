"""Fetch files of a shard folder that lies behind a URL into a local cache: once, checked, whole.

Several ranks and loader workers may ask for the same file at once: a file lock lets one of them fetch it, to a
temporary name that is renamed only after its checksum was right.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import shlex
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from spe_dist.errors import DataError
from spe_dist.utils.files import atomic_file, remove_unfinished
from spe_dist.utils.reading.bounded import TIMEOUT_S, Readable, TooLarge, chunks, open_pipe

ATTEMPTS = 4
FIRST_PAUSE_S = 0.5
MAX_READ_BYTES = 1 << 30  # of what has no declared size: a manifest, a file of a tokenizer

Result = TypeVar("Result")


def local_folder(source: str) -> Path | None:
    """The folder that `source` names, or None where it is a URL that must be fetched."""
    if source.startswith("file:"):
        return Path(unquote(urlsplit(source).path))
    scheme, colon, _ = source.partition(":")
    is_url = colon and (source.startswith("pipe:") or "://" in source) and scheme.isidentifier()
    return None if is_url else Path(source).expanduser()


def file_url(source: str, name: str) -> str:
    """URL of one file of the folder `source`.

    `{}` in the source stands for the name (`pipe:ssh host zstd -dc shards/{}.zst`); else the name follows a slash, in
    front of an http query (`https://host/shards?token=x`). A shell sees a name as one word, whatever it holds.
    """
    if source.startswith("pipe:"):
        name = shlex.quote(name)
    if "{}" in source:
        return source.replace("{}", name)
    if is_http(source):
        parts = urlsplit(source)
        return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{quote(name)}"))
    return f"{source.rstrip('/')}/{name}"


def is_http(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def cache_root(cache_dir: str | None) -> Path:
    """`cache_dir`, or `spe_dist` in the user's cache folder (XDG_CACHE_HOME, else ~/.cache)."""
    if cache_dir:
        return Path(cache_dir).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spe_dist"


def read_url(url: str, max_bytes: int = MAX_READ_BYTES) -> bytes:
    """All bytes behind `url`, tried a few times.

    Raises:
        DataError: they cannot be had, are more than `max_bytes`, or come too slowly (`utils.reading.bounded`).
    """
    return _with_attempts(url, lambda: _read_all(url, max_bytes))


def fetch_file(url: str, target: Path, sha256: str, size: int | None = None) -> None:
    """Bring the file behind `url` to `target` unless it is there; what arrives must have this checksum.

    Raises:
        DataError: it cannot be had, or is damaged at its source.
    """
    from filelock import FileLock

    if _present(target, size):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(str(target) + ".lock"):
        if not _present(target, size):
            remove_unfinished(target.parent, target.name)
            _with_attempts(url, lambda: _download(url, target, sha256, MAX_READ_BYTES if size is None else size))


def _present(target: Path, size: int | None) -> bool:
    return target.is_file() and (size is None or target.stat().st_size == size)


def _read_all(url: str, max_bytes: int) -> bytes:
    with _open(url) as stream:
        return b"".join(chunks(stream, max_bytes))


def _download(url: str, target: Path, sha256: str, max_bytes: int) -> None:
    digest, received = hashlib.sha256(), 0
    with atomic_file(target) as written:
        with _open(url) as stream, open(written, "wb") as file:
            for chunk in chunks(stream, max_bytes):
                file.write(chunk)
                digest.update(chunk)
                received += len(chunk)
        if digest.hexdigest() != sha256:
            raise _Damaged(f"its {received:,} bytes have another checksum than the manifest says")


class _Damaged(OSError):
    """What arrived is not what the manifest describes."""


def _open(url: str) -> AbstractContextManager[Readable]:
    """http(s) by urllib, which reports a missing file and a missing host differently; all else by webdataset."""
    if is_http(url):
        request = urllib.request.Request(url, headers={"User-Agent": "spe-dist", "Cache-Control": "no-cache"})
        return urllib.request.urlopen(request, timeout=TIMEOUT_S)
    if url.startswith("pipe:"):
        return open_pipe(url.removeprefix("pipe:"))
    from webdataset import gopen

    return gopen(url, "rb")


def _with_attempts(url: str, action: Callable[[], Result]) -> Result:
    failures = (OSError, EOFError, http.client.HTTPException, subprocess.SubprocessError)
    pause_s = FIRST_PAUSE_S
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return action()
        except ValueError as error:
            raise DataError(
                f"{url} cannot be opened: {error}; give a folder, or a URL that webdataset opens"
            ) from error
        except urllib.error.HTTPError as error:
            final = error.code in (401, 403, 404, 410)
            if final or attempt == ATTEMPTS:
                raise DataError(f"{url} cannot be fetched: the server answered {error.code} {error.reason}") from error
        except TooLarge as error:
            raise DataError(
                f"{url} sends {error}, by the manifest or as a limit; this is not what the manifest describes"
            ) from error
        except failures as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise DataError(
                    f"{url} does not fit into the cache: no space left; free some or set cache_dir"
                ) from error
            if attempt == ATTEMPTS:
                raise DataError(f"{url} cannot be fetched ({ATTEMPTS} attempts): {error}") from error
        time.sleep(pause_s)
        pause_s *= 2
    raise AssertionError("unreachable")
