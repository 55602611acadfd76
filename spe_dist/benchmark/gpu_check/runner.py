"""Stages in processes of their own, one after another, each within its time; nothing of one is lost to another.

A stage is the leader of a process group. Whatever it has started and left behind, launchers' ranks and loader
processes among it, is ended with it: orphans come to this process, which ends and reaps them, before the next stage
begins and wants the device. Imports no torch.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

from spe_dist.benchmark.gpu_check.record import BEGAN, ENDED, UNREADABLE, Record, parse

PR_SET_CHILD_SUBREAPER = 36  # of Linux's prctl
GRACE_S = 3.0  # between the request to end and the end
LONGEST = 2.0  # times its own limit that a stage gets where others took less than theirs
LEAST_S = 2.0  # with less a stage does not begin
OUT_OF_MEMORY = ("CUDA out of memory", "OutOfMemoryError", "CUDA error: out of memory")
PIECE_BYTES = 1 << 16
LOOK_S = 0.1  # between two looks at a stage that prints nothing

DONE, FAILED, TIME, MEMORY, NOTHING, SKIPPED, INTERRUPTED = (
    "done",
    "failed",
    "time is up",
    "out of memory",
    "no result",
    "not begun",
    "interrupted",
)


@dataclass(frozen=True)
class Stage:
    """One part of a check.

    Attributes:
        name: of one word.
        limit_s: time that it may take; of a shorter check a smaller part.
        command: the process; it is told its time by `--limit SECONDS` at the end.
    """

    name: str
    limit_s: float
    command: tuple[str, ...]


def fair_limit(stages: Sequence[Stage], left_s: float) -> float:
    """Time for the first of the stages that are left: its share of what is left, at most twice its own limit.

    A stage that takes all of its share takes nothing from the shares of those behind it; what one leaves over is
    shared out among them.
    """
    share = stages[0].limit_s / sum(stage.limit_s for stage in stages)
    return min(left_s * share, LONGEST * stages[0].limit_s)


class Runner:
    """Runs stages and records what they give."""

    def __init__(
        self, record: Record, seconds: float, environment: Mapping[str, str], say: Callable[[str], None] = print
    ) -> None:
        """`seconds`: for all stages together, from now on; `say` takes a line on how each ended."""
        self.record, self.say = record, say
        self.ends = time.monotonic() + seconds
        self.environment = dict(environment)
        _adopt_orphans()

    def run(self, stages: Sequence[Stage]) -> dict[str, str]:
        """How each stage ended, by name.

        Raises:
            KeyboardInterrupt: it was interrupted; the stage that ran has ended, and that is recorded.
        """
        ends: dict[str, str] = {}
        for number, stage in enumerate(stages):
            limit_s = fair_limit(stages[number:], self.ends - time.monotonic() - GRACE_S)
            if limit_s < min(LEAST_S, stage.limit_s):
                ends[stage.name] = SKIPPED
                self.record.add(stage.name, {"name": ENDED, "status": SKIPPED, "why": "no time is left"})
                continue
            ends[stage.name] = self._run(stage, limit_s)
        return ends

    def _run(self, stage: Stage, limit_s: float) -> str:
        began = time.monotonic()
        status, results, left_processes = INTERRUPTED, 0, 0
        try:
            self.record.add(stage.name, {"name": BEGAN, "limit_s": round(limit_s, 1)})
            running = _Running(stage, limit_s, self.environment, self.record)
            status, results, left_processes = running.wait(), running.results, running.left_processes
        finally:
            end_children()  # of a stage that was interrupted, however early
            seconds = round(time.monotonic() - began, 1)
            row = {"name": ENDED, "status": status, "seconds": seconds, "left_processes": left_processes}
            self.record.add(stage.name, row)
            self.say(f"{stage.name}: {status}, {seconds} s of {limit_s:.0f}, {results} results")
        return status


class _Running:
    """A stage that runs."""

    def __init__(self, stage: Stage, limit_s: float, environment: Mapping[str, str], record: Record) -> None:
        self.stage, self.record = stage, record
        self.ends = time.monotonic() + limit_s
        self.results, self.unreadable, self.out_of_memory = 0, 0, False
        self.left_processes = 0  # that it had started and did not end
        self.rest = b""
        self.process = subprocess.Popen(
            [*stage.command, "--limit", f"{limit_s:.1f}"],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.pipe = self.process.stdout.fileno()
        os.set_blocking(self.pipe, False)

    def wait(self) -> str:
        """Record what the stage prints until it or its time ends, then end all of it; returns how it ended."""
        over = not self._wait()
        if over:
            self._ask_to_end()
        self.end()
        while self._read():  # what was printed last
            pass
        self._take(self.rest)
        if over:
            return TIME
        if self.process.returncode:
            return MEMORY if self.out_of_memory else f"{FAILED}, {_meaning(self.process.returncode)}"
        if self.unreadable:
            return f"{FAILED}, {UNREADABLE}"
        return DONE if self.results else NOTHING

    def end(self) -> None:
        """End the stage and all that it has left."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.left_processes += end_children()

    def _wait(self) -> bool:
        """Whether the stage ends within its time."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.pipe, selectors.EVENT_READ)
            while self.process.poll() is None:
                left_s = self.ends - time.monotonic()
                if left_s <= 0:
                    return False
                if selector.select(min(left_s, LOOK_S)) and not self._read():
                    time.sleep(LOOK_S)  # it has closed its output, and goes on
        return True

    def _ask_to_end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        asked = time.monotonic()
        while self.process.poll() is None and time.monotonic() - asked < GRACE_S:
            self._read()
            time.sleep(LOOK_S)

    def _read(self) -> bool:
        """Take what is in the pipe; whether there was something."""
        try:
            piece = os.read(self.pipe, PIECE_BYTES)
        except BlockingIOError:
            return False
        *lines, self.rest = (self.rest + piece).split(b"\n")
        for line in lines:
            self._take(line)
        return bool(piece)

    def _take(self, line: bytes) -> None:
        text = line.decode("utf-8", errors="replace").rstrip("\r")
        if not text:
            return
        row = parse(text)
        if row is None:
            self.out_of_memory |= any(sign in text for sign in OUT_OF_MEMORY)
            self.record.log(self.stage.name, text)
            return
        self.results += row["name"] != UNREADABLE
        self.unreadable += row["name"] == UNREADABLE
        self.record.add(self.stage.name, row)


def _meaning(returncode: int) -> str:
    if returncode > 0:
        return f"exit status {returncode}"
    try:
        return signal.Signals(-returncode).name
    except ValueError:
        return f"signal {-returncode}"


def _adopt_orphans() -> None:
    """Have descendants whose parents end become children of this process, where the system can do that."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_children() -> int:
    """End and reap all descendants of this process; returns how many there were."""
    ended = 0
    while children := psutil.Process().children(recursive=True):
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        gone, _ = psutil.wait_procs(children, timeout=GRACE_S)
        ended += len(gone)
        if not gone:
            break  # waiting for the device in the kernel: nothing more can be done
    return ended
