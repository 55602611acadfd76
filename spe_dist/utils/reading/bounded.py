"""Streams from elsewhere, read with an end: no more bytes than were announced, no slower than a limit.

A server may send for ever, a byte a second, or nothing; a command behind `pipe:` may do the same.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Protocol, TypeVar

Result = TypeVar("Result")

TIMEOUT_S = 30.0  # how long less than SLOWEST_BYTES_PER_S may arrive, or nothing
SLOWEST_BYTES_PER_S = 1024
CHUNK_BYTES = 1 << 20


class TooLarge(OSError):
    """More bytes arrived than were announced."""


class TooSlow(TimeoutError):
    """Fewer bytes arrived than the limit asks for."""


class Readable(Protocol):
    """What `chunks` reads from: an HTTP response, a `Pipe`, a file."""

    def read(self, size: int, /) -> bytes: ...


class Pace:
    """Watches that every `timeout_s` at least `slowest` bytes a second arrive."""

    def __init__(self, timeout_s: float = TIMEOUT_S, slowest: float = SLOWEST_BYTES_PER_S) -> None:
        self.timeout_s, self.slowest = timeout_s, slowest
        self._began, self._received = time.monotonic(), 0

    def left_s(self) -> float:
        """Seconds until the span that is watched ends."""
        return max(0.0, self._began + self.timeout_s - time.monotonic())

    def received(self, count: int) -> None:
        """Note that `count` bytes have arrived. Raises TooSlow."""
        self._received += count
        span_s = time.monotonic() - self._began
        if span_s < self.timeout_s:
            return
        if self._received < self.slowest * span_s:
            raise TooSlow(f"only {self._received:,} bytes arrived in {span_s:.0f} s")
        self._began, self._received = time.monotonic(), 0


def chunks(stream: Readable, max_bytes: int, timeout_s: float = TIMEOUT_S) -> Iterator[bytes]:
    """The bytes of a stream as they arrive, at most `max_bytes` altogether.

    A read must not block for longer than `timeout_s` by itself: give sockets that timeout.

    Raises:
        TooLarge: more than `max_bytes` arrive.
        TooSlow: less than SLOWEST_BYTES_PER_S arrive over `timeout_s`.
    """
    read = getattr(stream, "read1", stream.read)  # what has arrived, where `read` waits for all that was asked for
    pace, received = Pace(timeout_s), 0
    while chunk := read(CHUNK_BYTES):
        received += len(chunk)
        if received > max_bytes:
            raise TooLarge(f"more than the {max_bytes:,} bytes that may arrive")
        yield chunk
        pace.received(len(chunk))


@contextmanager
def open_pipe(command: str, timeout_s: float = TIMEOUT_S) -> Iterator[Pipe]:
    """The output of a shell command; the command and what it started are ended when the block is left.

    The command is one that the user typed (`--shards 'pipe:...'`): nothing that was read from a file may stand in it
    but names that `spe_dist.utils.reading.names` takes.

    Raises:
        OSError: all its output was read, and it ended with another status than 0.
    """
    with subprocess.Popen(
        command, shell=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        try:
            pipe = Pipe(process.stdout, timeout_s)
            yield pipe
            if pipe.ended and (status := process.wait(timeout_s)):
                raise OSError(f"the command ended with status {status}")
        except subprocess.TimeoutExpired:
            pass  # it has closed its output and goes on: ended below
        finally:
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)


class Pipe:
    """A running command's output, read as it comes."""

    def __init__(self, output: IO[bytes], timeout_s: float) -> None:
        self.ended = False
        self._descriptor, self._timeout_s = output.fileno(), timeout_s
        self._waiting = selectors.DefaultSelector()
        self._waiting.register(output, selectors.EVENT_READ)

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none where the output has ended. Raises TooSlow where nothing comes for `timeout_s`."""
        if not self._waiting.select(self._timeout_s):
            raise TooSlow(f"nothing arrived in {self._timeout_s:g} s")
        data = os.read(self._descriptor, size)
        self.ended = not data
        return data


def within(seconds: float, function: Callable[[], Result]) -> Result:
    """`function()`, in a thread that is left behind where it takes longer: looking up a host's name knows no limit.

    Raises:
        TooSlow: it does.
    """
    outcome: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not outcome:
        raise TooSlow(f"no answer within {seconds:g} s")
    return outcome[0]
