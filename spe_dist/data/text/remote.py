"""Texts behind URLs: each is fetched once into the cache and read from there like any other file.

`s3://`, `gs://`, `hf://` and all else that fsspec opens, of which a folder or a glob gives several files; `https://`;
and `pipe:COMMAND`, whose output is a text. What is fetched again only where its size or version has changed is what
fsspec lists; the others are fetched each time, and an equal file stays as it was, so that a build over it continues.
"""

from __future__ import annotations

import filecmp
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spe_dist.data.shards.remote import cache_root, local_folder
from spe_dist.data.shards.transport import (
    ATTEMPTS,
    DATA_ATTEMPTS,
    MAX_TEXT_BYTES,
    file_system,
    is_http,
    limited,
    open_url,
    with_attempts,
)
from spe_dist.data.text.files import is_text_name
from spe_dist.errors import DataError
from spe_dist.utils.files import atomic_file
from spe_dist.utils.reading.bounded import TIMEOUT_S, chunks
from spe_dist.utils.wording import how_many, shown_url

FOLDER = "texts"
LISTING_FACTOR = 10  # of the time-out of a read: a folder of an object store may be long
NAME_CHARACTERS = 80
_VERSIONS = ("ETag", "etag", "md5Hash", "generation", "blob_id", "LastModified", "last_modified", "updated", "mtime")
_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class _Remote:
    """A file behind a URL. size, version: None where they are not known before it is fetched."""

    url: str
    size: int | None = None
    version: str | None = None

    def place(self, folder: Path) -> Path:
        key = hashlib.sha256(f"{self.url}\n{self.size}\n{self.version}".encode()).hexdigest()[:16]
        last = self.url.removeprefix("pipe:").partition("?")[0].rstrip("/").rpartition("/")[2]
        name = "output" if self.url.startswith("pipe:") else re.sub(r"[^\w.-]+", "_", last)[-NAME_CHARACTERS:]
        return folder / key / (name.lstrip(".") or "text")


@dataclass(frozen=True)
class LocalInputs:
    """Inputs without URLs. urls: by the local file that stands for each."""

    names: list[str] = field(default_factory=list)
    urls: dict[str, str] = field(default_factory=dict)


def is_url(argument: str) -> bool:
    """Whether an input is a URL that must be fetched."""
    return local_folder(argument) is None


def local_inputs(
    inputs: Sequence[str],
    cache_dir: str | None = None,
    timeout_s: float = TIMEOUT_S,
    tell: Callable[[str], None] = lambda _: None,
) -> LocalInputs:
    """The inputs with files of the cache in place of URLs, which are fetched where they are not there.

    Args:
        inputs: files, folders, globs, "-" and URLs.
        cache_dir: None: the user's cache folder.
        timeout_s: how long nothing, or less than 1 KiB/s, may arrive; a command that takes longer is ended with all
            that it started.
        tell: is given what is fetched.

    Raises:
        DataError: a URL cannot be fetched, or gives no text file.
    """
    found = LocalInputs()
    folder = cache_root(cache_dir) / FOLDER
    for argument in inputs:
        local = local_folder(argument)
        if local is not None:
            found.names.append(str(local) if argument.startswith("file:") else argument)
            continue
        files = _listed(argument, timeout_s)
        if len(files) > 1:
            tell(f"{shown_url(argument)}: {how_many(len(files), 'file')}")
        for file in files:
            place = str(_fetched(file, folder, timeout_s, tell))
            found.names.append(place)
            found.urls[place] = shown_url(file.url)
    return found


def _listed(url: str, timeout_s: float) -> list[_Remote]:
    """The text files that a URL names: itself, those of a folder, or those of a glob."""
    if url.startswith("pipe:") or is_http(url):
        return [_Remote(url)]

    def look(system: Any, path: str) -> list[_Remote]:
        if _GLOB.search(path):
            infos = [info for info in system.glob(path, detail=True).values() if info["type"] == "file"]
        elif (info := system.info(path))["type"] == "file":
            infos = [info]
        else:
            infos = [i for name, i in system.find(path, detail=True).items() if is_text_name(Path(_below(name, path)))]
        return sorted((_remote(system, info) for info in infos), key=lambda file: file.url)

    def listed() -> list[_Remote]:
        system, path = file_system(url)
        return limited(LISTING_FACTOR * timeout_s, lambda: look(system, path))

    files = with_attempts(url, listed, ATTEMPTS)
    if not files:
        raise DataError(f"{shown_url(url)} names no text file; give a file, a folder or a glob of text")
    return files


def _below(name: str, folder: str) -> str:
    return name.removeprefix(folder).lstrip("/")


def _remote(system: Any, info: dict[str, Any]) -> _Remote:
    version = next((str(info[key]) for key in _VERSIONS if info.get(key) is not None), None)
    return _Remote(system.unstrip_protocol(info["name"]), info.get("size"), version)


def _fetched(file: _Remote, folder: Path, timeout_s: float, tell: Callable[[str], None]) -> Path:
    """The file in the cache."""
    from filelock import FileLock

    target = file.place(folder)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if file.version is None or not target.is_file():
                tell(f"fetching {shown_url(file.url)} to {target}")
                with_attempts(file.url, lambda: _download(file, target, timeout_s), DATA_ATTEMPTS)
    except OSError as error:
        raise DataError(
            f"{shown_url(file.url)} cannot be kept in {folder}: {error}; set XDG_CACHE_HOME or --cache_dir"
        ) from error
    return target


def _download(file: _Remote, target: Path, timeout_s: float) -> None:
    limit = MAX_TEXT_BYTES if file.size is None else file.size
    fresh = target.with_name(f"{target.name}.fetched")
    with atomic_file(fresh) as written:
        with open_url(file.url, timeout_s) as stream, open(written, "wb") as local:
            for chunk in chunks(stream, limit, timeout_s):
                local.write(chunk)
            received = local.tell()
        if file.size is not None and received != file.size:
            raise OSError(f"{received:,} bytes arrived of {file.size:,}")
    if target.is_file() and filecmp.cmp(fresh, target, shallow=False):
        fresh.unlink()
    else:
        fresh.replace(target)
