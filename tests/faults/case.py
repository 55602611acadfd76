"""One case: a run that faults are put into, resumed until it ends, and compared with the undisturbed run."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spe_dist.cli.exits import DONE, FAILED, INTERRUPTED, STOPPED
from spe_dist.training.metrics import read_rows
from tests.faults.attempts import (
    Attempt,
    FaultError,
    descendants,
    fork_ranks,
    launch,
    launch_command,
    launched_environment,
    reap,
)
from tests.faults.injection import Plan, Trap
from tests.faults.runs import Runs, Setup, comparable, trained_ids, whole_batches

SHARED_MEMORY = Path("/dev/shm")
OWN_MEMORY = "SPE_FAULTS_OWN_SHM"  # set where that is the harness's own, so that whatever lies there is of its runs
NOTICED_S = 60.0  # within which the others must notice that a rank has gone
RUN_S = 240.0  # no run here takes so long, even on a busy machine
LEAVING_S = 10.0  # a process that was signalled takes a moment to go
RESUMED = re.compile(r"resuming from .*, step ([\d,]+)")


class Skipped(Exception):
    """This machine cannot have the fault; the message says why."""


@dataclass(frozen=True)
class CaseId:
    """What repeats a case: everything that it draws comes from these three."""

    kind: str
    seed: int
    number: int

    def __str__(self) -> str:
        return f"{self.kind}/{self.seed}/{self.number}"

    @classmethod
    def parse(cls, text: str) -> CaseId:
        """Raises ValueError."""
        kind, seed, number = text.rsplit("/", 2)
        return cls(kind, int(seed), int(number))


@dataclass
class Case:
    """What a kind of fault works with. `faults`: how many were put in, `moments`: where, for a reader."""

    id: CaseId
    runs: Runs
    folder: Path
    rng: random.Random
    setup: Setup = field(default_factory=Setup)
    launcher: str = "fork"
    attempts: list[Attempt] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)  # of each start
    faults: int = 0
    moments: list[str] = field(default_factory=list)
    steps_lost: int = 0
    resume_s: list[float] = field(default_factory=list)
    ended_s: list[float] = field(default_factory=list)  # from a fault to the end of the last process
    disk: Path | None = None  # a small file system that holds the run's folder
    starter: Callable[[Setup, list[str], Path, Plan], Attempt] | None = None  # in place of forks and launchers here
    at_end: list[Callable[[], None]] = field(default_factory=list)
    _outside: float | None = None  # when a fault was put in from outside

    @property
    def output(self) -> Path:
        return (self.disk or self.folder) / "run"

    def start(
        self, *traps: Trap, resume: bool = False, setup: Setup | None = None, given: Sequence[str] = ()
    ) -> Attempt:
        """Start the run, or go on with it, with traps."""
        setup = setup or self.setup
        folder = self.folder / f"start_{len(self.attempts) + 1}"
        folder.mkdir(parents=True)
        arguments = [*self.runs.arguments(setup, self.output), *(["--resume=auto"] if resume else []), *given]
        plan = Plan(str(folder), str(self.output), traps)
        attempt = self.start_ranks(setup, arguments, folder, plan)
        self.attempts.append(attempt)
        self.ranks.append(setup.ranks)
        return attempt

    def start_ranks(self, setup: Setup, arguments: list[str], folder: Path, plan: Plan) -> Attempt:
        """Start the ranks, or a launcher of them."""
        if self.starter is not None:
            return self.starter(setup, arguments, folder, plan)
        if self.launcher == "fork":
            return fork_ranks(setup.program, arguments, setup.ranks, folder, plan)
        command = [*launch_command(self.launcher, setup.program, setup.ranks), *arguments]
        return launch({"launcher": command}, folder, launched_environment(folder, plan))

    def happened(self, what: str) -> None:
        """Count a fault."""
        self.faults += 1
        self.moments.append(what)

    def fired(self, attempt: Attempt) -> bool:
        """Count the traps of a start that something ran into; whether there were any."""
        lines = [line for rank in attempt.notes("fired").values() for line in rank]
        for line in lines:
            self.happened(
                f"{line['do']} rank {line['rank']} at {line['at'].partition(':')[2] or line['at']} {line['count']}"
            )
        return bool(lines)

    def expect_end(
        self, attempt: Attempt, allowed: set[int], timeout_s: float = RUN_S, noticed_s: float = NOTICED_S
    ) -> None:
        """Wait for the end of a disturbed start, which is to come within `noticed_s` of the fault.

        `allowed`: statuses of forked ranks.
        """
        attempt.wait(timeout_s)
        fired = [line["time"] for rank in attempt.notes("fired").values() for line in rank]
        if self._outside is not None:
            fired.append(self._outside)
        if fired:
            self.ended_s.append(max(0.0, attempt.ended - min(fired)))
        self._outside = None
        self.check_statuses(attempt, allowed)
        if self.ended_s and self.ended_s[-1] > noticed_s:
            raise FaultError(f"the last rank ended {self.ended_s[-1]:.0f} s after the fault, expected {noticed_s:g} s")
        self.check_nothing_left()

    def fault_from_outside(self, what: str) -> None:
        """Count a fault that was put in just now."""
        self._outside = time.time()
        self.happened(what)

    def check_statuses(self, attempt: Attempt, allowed: set[int]) -> None:
        """Whether all processes of a start have ended as they may."""
        if self.launcher != "fork":
            return  # launchers have statuses of their own
        wrong = {name: status for name, status in attempt.statuses.items() if status not in allowed}
        if wrong:
            raise FaultError(f"ended with {wrong}, expected {sorted(allowed)}")

    def finish(
        self, setup: Setup | None = None, exact: bool = True, given: Sequence[str] = (), leftovers: bool = True
    ) -> None:
        """Resume until the end, without a fault, and compare with the undisturbed run.

        leftovers: whether nothing of other starts may be left.
        """
        reached = self.steps_done()
        attempt = self.start(resume=True, setup=setup, given=given)
        statuses = attempt.wait(RUN_S)
        if any(statuses.values()):
            raise FaultError(f"resumed with --resume auto it ends with {statuses}")
        self.count_lost(attempt, reached)
        self.compare(exact, leftovers)

    def steps_done(self) -> int:
        """Steps whose end has been written."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            return max((row["step"] for row in read_rows(self.output / "metrics.jsonl", "train")), default=0)
        return 0

    def count_lost(self, attempt: Attempt, reached: int) -> None:
        """How many finished steps a resumed start trains again, and how long it took to its first step."""
        found = RESUMED.search(attempt.text())
        self.steps_lost += max(0, reached - (int(found[1].replace(",", "")) if found else 0))
        first = [lines[0]["time"] for lines in attempt.notes("ids").values() if lines]
        self.resume_s.append((max(first) if first else attempt.ended) - attempt.began)

    def compare(self, exact: bool = True, leftovers: bool = True, until: int | None = None) -> None:
        """Rows and ids against the undisturbed run's. Raises FaultError with the first difference.

        until: from this step on only sentences must be equal.
        """
        reference = self.runs.reference(self.setup)
        rows, expected = comparable(self.output), reference.rows
        if until is not None:
            rows, expected = ([row for row in found if row["step"] < until] for found in (rows, expected))
        if exact and rows != expected:
            for mine, theirs in zip(rows, expected, strict=False):
                if mine != theirs:
                    names = [n for n in {*mine, *theirs} if mine.get(n) != theirs.get(n)]
                    shown = {n: (mine.get(n), theirs.get(n)) for n in sorted(names)[:4]}
                    raise FaultError(f"row of step {mine['step']} differs (found, undisturbed): {shown}")
            raise FaultError(f"{len(rows)} rows, the undisturbed run has {len(expected)}")
        if exact:
            ids = trained_ids(self.attempts)
            for rank, steps in reference.ids.items():
                if ids.get(rank) != steps:
                    raise FaultError(f"rank {rank} trained on other sentences than in the undisturbed run")
        else:
            compare_nearly(rows, expected)
            if whole_batches(self.attempts, self.ranks) != reference.batches:
                raise FaultError("the ranks together trained on other sentences than in the undisturbed run")
        if leftovers:
            self.check_nothing_left()

    def check_nothing_left(self) -> None:
        """No process and no shared memory of the run is left."""
        reap()
        orphans = descendants()
        deadline = time.monotonic() + LEAVING_S
        while (
            orphans := [p for p in orphans if p.is_running() and p.status() != "zombie"]
        ) and time.monotonic() < deadline:
            time.sleep(0.1)
        if orphans:
            names = [f"{p.pid} {' '.join(p.cmdline()[:4])}" for p in orphans]
            for process in orphans:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            raise FaultError(f"processes are left: {names}")
        reap()
        left = sorted(file.name for file in SHARED_MEMORY.iterdir()) if os.environ.get(OWN_MEMORY) else []
        if left:
            for name in left:
                (SHARED_MEMORY / name).unlink(missing_ok=True)
            raise FaultError(f"left in /dev/shm: {left}")

    def mount_small_disk(self, mib: int = 48) -> None:
        """Give the run a file system of its own. Skipped where that cannot be had."""
        if os.geteuid() != 0:
            raise Skipped("mounting a small file system needs root")
        disk = self.folder / "disk"
        disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "none", str(disk)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Skipped(f"no small file system: {done.stderr.strip()}")
        self.disk = disk
        self.at_end.append(lambda: subprocess.run(["umount", "--lazy", str(disk)], check=False) and None)

    def end(self) -> None:
        """Kill what still runs, and unmount."""
        for attempt in self.attempts:
            attempt.end()
        self._kill_descendants()
        for function in self.at_end:
            function()
        self._kill_descendants()
        reap()

    def _kill_descendants(self) -> None:
        for process in descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.05)
        reap()

    def remove_files(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def compare_nearly(rows: list[dict[str, Any]], expected: list[dict[str, Any]], tolerance: float = 1e-5) -> None:
    """Steps and rates exactly, losses within rounding: for another number of ranks. Raises FaultError."""
    mine, theirs = ([row for row in all_rows if row["kind"] == "train"] for all_rows in (rows, expected))
    if [row["step"] for row in mine] != [row["step"] for row in theirs]:
        raise FaultError(f"steps {[row['step'] for row in mine]}, undisturbed {[row['step'] for row in theirs]}")
    for a, b in zip(mine, theirs, strict=True):
        if a["learning_rate"] != b["learning_rate"]:
            raise FaultError(f"step {a['step']}: learning rate {a['learning_rate']}, undisturbed {b['learning_rate']}")
        if abs(a["loss"] - b["loss"]) > tolerance * abs(b["loss"]):
            raise FaultError(f"step {a['step']}: loss {a['loss']}, undisturbed {b['loss']}")


ENDED_BY_KILL = {-signal.SIGKILL, FAILED, DONE}  # the others fail, unless they had ended already
STOPPED_OR_DONE = {DONE, STOPPED}
ENDED_BY_SIGNALS = {*STOPPED_OR_DONE, FAILED, INTERRUPTED, -signal.SIGTERM, -signal.SIGUSR1, -signal.SIGINT}
