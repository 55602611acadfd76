"""Names and places of the files of a shard folder that lies behind a URL, and its small files in a local cache.

Several ranks and loader workers may ask for the same file at once: a file lock lets one of them fetch it, to a
temporary name that is renamed only after its checksum was right.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from spe_dist.data.shards.transport import ATTEMPTS, MAX_READ_BYTES, is_http, open_url, with_attempts
from spe_dist.errors import DataError
from spe_dist.utils.files import atomic_file, remove_unfinished
from spe_dist.utils.reading.bounded import TIMEOUT_S, chunks
from spe_dist.utils.wording import shown_url


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
        try:
            parts = urlsplit(source)
        except ValueError as error:
            raise DataError(f"{shown_url(source)} is not a URL: {error}; correct it") from None
        return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{quote(name)}"))
    return f"{source.rstrip('/')}/{name}"


def cache_root(cache_dir: str | None) -> Path:
    """`cache_dir`, or `spe_dist` in the user's cache folder (XDG_CACHE_HOME, else ~/.cache)."""
    if cache_dir:
        return Path(cache_dir).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spe_dist"


def fetch_file(url: str, target: Path, sha256: str, size: int | None = None, timeout_s: float = TIMEOUT_S) -> None:
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
            limit = MAX_READ_BYTES if size is None else size
            with_attempts(url, lambda: _download(url, target, sha256, limit, timeout_s), ATTEMPTS)


def _present(target: Path, size: int | None) -> bool:
    return target.is_file() and (size is None or target.stat().st_size == size)


def _download(url: str, target: Path, sha256: str, max_bytes: int, timeout_s: float) -> None:
    digest, received = hashlib.sha256(), 0
    with atomic_file(target) as written:
        with open_url(url, timeout_s) as stream, open(written, "wb") as file:
            for chunk in chunks(stream, max_bytes, timeout_s):
                file.write(chunk)
                digest.update(chunk)
                received += len(chunk)
        if digest.hexdigest() != sha256:
            raise OSError(f"its {received:,} bytes have another checksum than the manifest says")
