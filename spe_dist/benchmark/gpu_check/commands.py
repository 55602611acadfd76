"""What every stage is told, and the commands that it runs, each within a part of the stage's time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from spe_dist.benchmark.gpu_check.record import give
from spe_dist.utils.commands import kill_with_descendants

ROOT = Path(__file__).resolve().parents[3]
REASON = re.compile(r"^(error: |[\w.]*(Error|Exception|Failure|Interrupt)\b)")
TIMED_OUT = 124  # as `timeout` of coreutils has it
LOOK_S = 0.1  # between two looks at a command


@dataclass(frozen=True)
class Task:
    """What a stage works with.

    Attributes:
        data: made by `spe_dist.benchmark.gpu_check.data`.
        work: folder for what the stage writes; another for each stage.
        out: folder of the check, for files that are results.
        limit_s: time of the stage, from `began` on.
        small: as for a CPU and a test.
        on_gpu: whether there is one.
    """

    data: Path
    work: Path
    out: Path
    limit_s: float
    small: bool
    on_gpu: bool
    began: float = field(default_factory=time.monotonic)

    def left_s(self) -> float:
        """Time that is left, less what it takes to end."""
        return max(1.0, self.limit_s - (time.monotonic() - self.began) - 2.0)

    def share_s(self, parts: int) -> float:
        """An equal part of the time that is left."""
        return self.left_s() / parts


def run_spe(task: Task, *arguments: object, limit_s: float) -> tuple[int, str]:
    """(exit status, output) of an `spe` command; the output is in the stage's log too."""
    return run_logged(task, [sys.executable, "-m", "spe_dist", *map(str, arguments)], limit_s)


def run_logged(
    task: Task, command: Sequence[str], limit_s: float, environment: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """(exit status, output) of a command in the checkout; all its processes end with it. 124: its time was up."""
    print(f"$ {' '.join(command)}", flush=True)
    file, ends = task.work / "output.txt", time.monotonic() + limit_s
    with file.open("w", encoding="utf-8") as output, file.open(encoding="utf-8", errors="replace") as shown:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        status = None
        while status is None:
            with suppress(subprocess.TimeoutExpired):
                status = process.wait(LOOK_S)
            if status is None and time.monotonic() > ends:
                status = TIMED_OUT
                _end(process)
            print(shown.read(), end="", flush=True)
    return status, file.read_text(encoding="utf-8", errors="replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command with all that it has started."""
    kill_with_descendants(process.pid)
    process.wait()


def reason(status: int, text: str) -> str:
    """Why a command failed: the last line of its output that names an error, else the last line."""
    if status == TIMED_OUT:
        return "its time was up"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if REASON.match(line)]
    return f"exit status {status}: {(named or lines or ['it printed nothing'])[-1][:300]}"


def give_failure(name: str, why: str) -> bool:
    """A result that says why there is none; False, as what a stage returns then."""
    give(name, failed=why)
    return False
