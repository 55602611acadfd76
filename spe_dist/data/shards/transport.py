"""Bytes from behind a URL: whole or a range of them, never more than were announced, never for ever.

http(s) is read with urllib, `pipe:` is a command's output, all else (s3, gs, hf, ...) is read with fsspec. What may be
better a moment later is tried again: time-outs, lost connections, answers 408, 425, 429 and 5xx.
"""

from __future__ import annotations

import errno
import functools
import http.client
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

from spe_dist.errors import DataError
from spe_dist.utils.reading.bounded import (
    SLOWEST_BYTES_PER_S,
    TIMEOUT_S,
    Readable,
    TooLarge,
    TooSlow,
    chunks,
    open_pipe,
    within,
)
from spe_dist.utils.wording import one_line, shown_url

ATTEMPTS = 4  # of a manifest or another small file, about 4 s: a URL that is mistyped is said soon
DATA_ATTEMPTS = 7  # of shards and blocks, about 30 s more than the time-outs: a run outlives a server's restart
FIRST_PAUSE_S = 0.5
MAX_TEXT_BYTES = 1 << 44  # of a text of unknown size
MAX_READ_BYTES = 1 << 30  # of what has no declared size: a manifest, a file of a tokenizer
AGAIN = (408, 425, 429)  # answers of http below 500 that may be others a moment later
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}  # scheme -> extra of this package that reads it
COMMANDS = {  # scheme -> a command that prints a file, for the form `pipe:`
    "s3": "aws s3 cp {url} -",
    "s3a": "aws s3 cp {url} -",
    "gs": "gcloud storage cat {url}",
    "gcs": "gcloud storage cat {url}",
}

Result = TypeVar("Result")


class NoRanges(Exception):
    """The server answers a request for a range with the whole file."""


class Final(OSError):
    """Another attempt would end in the same way."""


def is_http(url: str) -> bool:
    """Whether urllib reads it."""
    return url.startswith(("http://", "https://"))


def may_have_ranges(url: str) -> bool:
    """Whether ranges of a file can be asked for at all; a server of http may still not give them."""
    return not url.startswith("pipe:")


def read_url(url: str, max_bytes: int = MAX_READ_BYTES, timeout_s: float = TIMEOUT_S) -> bytes:
    """All bytes behind `url`, tried a few times.

    Raises:
        DataError: they cannot be had, are more than `max_bytes`, or come too slowly (`utils.reading.bounded`).
    """

    def read() -> bytes:
        with open_url(url, timeout_s) as stream:
            return b"".join(chunks(stream, max_bytes, timeout_s))

    return with_attempts(url, read, ATTEMPTS)


def read_range(url: str, start: int, size: int, timeout_s: float = TIMEOUT_S) -> bytes:
    """`size` bytes of the file behind `url` from byte `start` on, or fewer where it ends before; one attempt.

    Raises:
        NoRanges: the server gives whole files only.
        OSError: they cannot be had.
    """
    assert size > 0
    if not is_http(url):
        system, path = file_system(url)
        return limited(timeout_s + size / SLOWEST_BYTES_PER_S, lambda: system.cat_file(path, start, start + size))
    request = _request(url)
    request.add_header("Range", f"bytes={start}-{start + size - 1}")
    with _answer(request, timeout_s) as response:
        if response.status != http.client.PARTIAL_CONTENT:
            raise NoRanges
        given = response.headers.get("Content-Range", "")
        if not given.startswith(f"bytes {start}-"):
            raise Final(f"the server was asked for bytes from {start:,} on and sends {given[:60]!r}")
        return b"".join(chunks(response, size, timeout_s))


@contextmanager
def open_url(url: str, timeout_s: float = TIMEOUT_S) -> Iterator[Readable]:
    """The file behind `url` as a stream, for `chunks`.

    Raises:
        OSError: it cannot be opened.
        ValueError: nothing here opens such a URL.
    """
    with _opened(url, timeout_s) as stream:
        yield stream


def with_attempts(url: str, action: Callable[[], Result], attempts: int = DATA_ATTEMPTS) -> Result:
    """What `action` gives, called again after pauses that double where it fails.

    Raises:
        DataError: it failed in a way that stays, or in the last attempt; one line with the URL.
    """
    failures = (OSError, EOFError, http.client.HTTPException, subprocess.SubprocessError)
    pause_s, where = FIRST_PAUSE_S, shown_url(url)
    for attempt in range(1, attempts + 1):
        try:
            return action()
        except DataError:
            raise
        except ValueError as error:
            why = one_line(error)
            raise DataError(f"{where} cannot be opened: {why}; give a folder, or a URL that fsspec opens") from error
        except urllib.error.HTTPError as error:
            if (error.code < 500 and error.code not in AGAIN) or attempt == attempts:
                raise DataError(
                    f"{where} cannot be fetched: the server answered {error.code} {one_line(error.reason)}"
                ) from error
        except TooLarge as error:
            raise DataError(
                f"{where} sends {error}, by the manifest or as a limit; this is not what the manifest describes"
            ) from error
        except (FileNotFoundError, PermissionError, Final) as error:
            raise DataError(f"{where} cannot be fetched: {one_line(error)}") from error
        except failures as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise DataError(
                    f"{where} does not fit into the cache: no space left; free some or set cache_dir"
                ) from error
            if attempt == attempts:
                remedy = "; raise fetch_timeout_s if it needs longer" if isinstance(error, TooSlow) else ""
                raise DataError(
                    f"{where} cannot be fetched ({attempts} attempts): {one_line(error)}{remedy}"
                ) from error
        time.sleep(pause_s)
        pause_s *= 2
    raise AssertionError("unreachable")


class _StaysHttp(urllib.request.HTTPRedirectHandler):
    """Follows a server to no ftp:// and, from https, to nothing that anybody on the way could read or change."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        to = urllib.parse.urlsplit(newurl).scheme
        if to != "https" and (to != "http" or req.type == "https"):
            why = f"and leads to {to}://, which is not followed"
            raise urllib.error.HTTPError(req.full_url, code, why, headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@functools.cache
def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_StaysHttp)


def _request(url: str) -> urllib.request.Request:
    if not url.isprintable() or " " in url:
        raise ValueError("it holds spaces or control characters; write a space as %20")
    if "@" in urllib.parse.urlsplit(url).netloc:
        raise ValueError("user and password in a URL are not sent; use 'pipe:curl -u USER:PASSWORD ...'")
    return urllib.request.Request(url, headers={"User-Agent": "spe-dist", "Cache-Control": "no-cache"})


def _answer(request: urllib.request.Request, timeout_s: float) -> Any:
    """The answer to a request. The limit of a socket is one of each read: a head sent byte by byte would never end."""
    return limited(2 * timeout_s, lambda: _opener().open(request, timeout=timeout_s))


def _opened(url: str, timeout_s: float) -> AbstractContextManager[Any]:
    """http(s) by urllib, which reports a missing file and a missing host differently."""
    if is_http(url):
        return _answer(_request(url), timeout_s)
    if url.startswith("pipe:"):
        return open_pipe(url.removeprefix("pipe:"), timeout_s)
    system, path = file_system(url)
    return _Slow(limited(timeout_s, lambda: system.open(path, "rb")), timeout_s)


class _Slow:
    """A file of fsspec of which a read may take no longer than a time limit."""

    def __init__(self, file: Any, timeout_s: float) -> None:
        self._file, self._timeout_s = file, timeout_s

    def __enter__(self) -> _Slow:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int, /) -> bytes:
        return limited(self._timeout_s, lambda: self._file.read(size))


def file_system(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path in it. ValueError where there is none, DataError what it lacks."""
    from fsspec.core import url_to_fs

    if "::" in url:  # one may give names of further files and templates of text to the next
        raise ValueError("chains of URLs with `::` are not followed")
    try:
        system, path = url_to_fs(url)
    except ImportError as error:
        scheme = url.partition(":")[0]
        extra = EXTRAS.get(scheme)
        remedy = f'pip install "spe-dist[{extra}]"' if extra else f"install what fsspec needs for {scheme}:"
        command = COMMANDS.get(scheme, "COMMAND {url}").format(url=shown_url(url))
        raise DataError(
            f"{shown_url(url)} cannot be opened: {one_line(error)}; {remedy}, or have a command print it: "
            f"'pipe:{command}' (of shards with {{}} where the file's name belongs)"
        ) from error
    except ValueError:
        raise
    except Exception as error:  # whatever a file system makes of its arguments
        raise ValueError(one_line(error)) from error
    return system, path


def limited(seconds: float, action: Callable[[], Result]) -> Result:
    """`within`, with errors of other kinds, which libraries of object stores have, turned into OSError.

    Raises:
        TooSlow: it takes longer.
        OSError: it failed.
        ValueError, HTTPException: of urllib, as they are.
    """
    try:
        return within(seconds, action)
    except (OSError, ValueError, http.client.HTTPException):
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
