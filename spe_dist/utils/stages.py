"""Stages: commands that run one after another, each shown as a user would type it, each with its log."""

from __future__ import annotations

import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TextIO

from spe_dist.errors import SpeError
from spe_dist.utils.commands import command_variables, search_path

SHOWN_AFTER_S = 0.2  # between two lines of progress in a terminal


class Stage:
    """One command.

    Args:
        name: of its log.
        title: its headline.
        parts: the command as it is typed: paths and numbers as they are, texts split at spaces.
        more: words that follow, as they are.
    """

    def __init__(self, name: str, title: str, *parts: object, more: Sequence[str] = ()) -> None:
        self.name = name
        self.title = title
        words = [word for part in parts for word in (part.split() if isinstance(part, str) else [str(part)])]
        self.command = [*words, *more]


@dataclass(frozen=True)
class Cost:
    """What a finished stage took: seconds by the clock, and of all its processes on the CPU."""

    seconds: float
    cpu_seconds: float


class StageError(SpeError):
    """A stage that ended with another status than 0, which is kept here."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def run_stage(stage: Stage, number: int, stages: int, logs: Path) -> Cost:
    """Run a stage, its output in `logs`/NAME.log and its newest line in a terminal; returns what it took.

    Raises:
        StageError: when it ends with another status than 0; the message has the command's own error, if it named one.
    """
    log = logs / f"{stage.name}.log"
    print(f"\n[{number}/{stages}] {stage.title}\n$ {shlex.join(stage.command)}", flush=True)
    before, began = _cpu_seconds(), time.monotonic()
    with log.open("w", encoding="utf-8", buffering=1) as file:  # by lines, for whoever follows it
        status = _run(_resolve(stage.command), file)
    if status:
        raise StageError(f"{stage.title} ended with status {status}: {_reason(log)} (all of it: {log})", status)
    cost = Cost(time.monotonic() - began, _cpu_seconds() - before)
    print(f"  {cost.seconds:.0f} s ({cost.cpu_seconds:.0f} s on the CPU), log: {log}", flush=True)
    return cost


def _run(command: Sequence[str], log: TextIO) -> int:
    """Exit status of a command whose output goes to `log`, and its newest line to a terminal."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **command_variables()}
    live, shown_at = sys.stdout.isatty(), 0.0
    # In a process group of its own, which Ctrl-C does not reach: a training saves at one SIGINT and ends at a second.
    with (
        _ended_as_by_ctrl_c(),
        subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            process_group=0,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                log.write(line)
                if live and line.strip() and time.monotonic() - shown_at > SHOWN_AFTER_S:
                    width = shutil.get_terminal_size().columns - 3
                    print(f"\r  {line.strip()[:width]:{width}}", end="", flush=True)
                    shown_at = time.monotonic()
        except BaseException:
            _interrupt(process)
            try:
                log.writelines(process.stdout)  # what it says while it saves; it would fail where nobody reads
            except KeyboardInterrupt:
                _interrupt(process)
                raise
            raise
    if live:
        print(f"\r{'':{shutil.get_terminal_size().columns - 1}}\r", end="", flush=True)
    return process.returncode


@contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """SIGTERM and SIGHUP do what Ctrl-C does: the command, in a process group of its own, would go on alone."""

    def raise_interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signals = [s for s in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(s) is signal.SIG_DFL]
    before = {number: signal.signal(number, raise_interrupt) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)  # a launcher's ranks are in the group


def _resolve(command: Sequence[str]) -> list[str]:
    """The command with `spe` and `python` replaced by this interpreter, whatever PATH holds."""
    name, *rest = command
    if name == "spe":
        return [sys.executable, "-m", "spe_dist", *rest]
    if name == "python":
        return [sys.executable, *rest]
    return [shutil.which(name, path=search_path()) or name, *rest]


def _cpu_seconds() -> float:
    """Of all child processes that have ended, and theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _reason(log: Path) -> str:
    """The line of a log that names the error, else its last one."""
    lines: list[str] = []
    with suppress(OSError):
        lines = [line.strip() for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    named = [line for line in lines if line.startswith("error: ")]
    return (named or lines[-1:] or ["it wrote nothing"])[0].removeprefix("error: ")
