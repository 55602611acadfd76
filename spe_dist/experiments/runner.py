"""Run what is missing of a plan: each piece once what it needs is there, a failed one reported and the others go on."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TextIO

import filelock

from spe_dist.errors import ConfigError
from spe_dist.experiments.pieces import Piece, Plan
from spe_dist.experiments.process import Process, environment
from spe_dist.experiments.record import (
    LOG_FILE,
    Record,
    Requests,
    difference,
    is_complete,
    is_running,
    last_lines,
    read_record,
    write_record,
)
from spe_dist.training.progress import duration

POLL_S = 0.1
SAY_EVERY_S = 60.0
FINISHED, FAILED, STOPPED, INTERRUPTED = 0, 1, 75, 130  # as in spe_dist.cli.exits


def piece_state(piece: Piece, requests: Requests) -> tuple[str, list[str]]:
    """new, started, stopped, failed, finished or changed; and for changed what is asked for otherwise."""
    record = read_record(piece.folder)
    if record.state == "new":
        if piece.result_folder.exists() and any(piece.result_folder.iterdir()):
            return "changed", ["there is no record of what it was asked for"]
        return "new", []
    changes = difference(record.request, requests.by_id[piece.id])
    if changes:
        return "changed", changes
    if record.state == "finished" and not is_complete(piece):
        return "stopped", []
    return record.state, []


def still_needed(plan: Plan, requests: Requests) -> Plan:
    """The plan without what only finished pieces have needed, such as a pre-training that was removed once exported."""
    unfinished = {i for i, piece in plan.pieces.items() if piece_state(piece, requests)[0] != "finished"}
    needed: set[str] = set()
    todo = [i for i in plan.chosen if i in unfinished]
    while todo:
        piece_id = todo.pop()
        if piece_id not in needed:
            needed.add(piece_id)
            todo += [need for need in plan.pieces[piece_id].needs if need in unfinished]
    return replace(plan, pieces={i: p for i, p in plan.pieces.items() if i not in unfinished or i in needed})


def refuse_changed(plan: Plan, requests: Requests, renew: bool) -> None:
    """Pieces that were made with other settings: removed where `renew` says so, else a ConfigError that names them."""
    changed = {}
    for piece in plan.pieces.values():
        state, changes = piece_state(piece, requests)
        if state == "changed":
            changed[piece.id] = changes
    if not changed:
        return
    if renew:
        for piece_id in changed:
            shutil.rmtree(plan.pieces[piece_id].folder)
        return
    lines = [f"  {i}: {'; '.join(changes)}" for i, changes in changed.items()]
    raise ConfigError(
        f"{len(changed)} pieces of work in {requests.output} were made with other settings:",
        *lines,
        "Put the settings back, give another output folder, or remove and make these again with --renew",
    )


@contextmanager
def alone_in(output: Path, plan: Plan) -> Iterator[None]:
    """Nobody else works in OUTPUT while the block lasts.

    Raises ConfigError where another runner, or a process that one has left behind, is at work.
    """
    output.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(output / ".lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise ConfigError(f"another run works in {output}; wait for it or stop it") from None
    try:
        for piece in plan.pieces.values():
            record = read_record(piece.folder)
            if is_running(record, piece):
                raise ConfigError(f"process {record.process} still works on {piece.id}; wait for it or end it")
        yield
    finally:
        lock.release()


class Runner:
    """Runs a plan with `jobs` pieces at once. `devices`: GPUs of which each piece without a launcher sees one."""

    def __init__(
        self,
        plan: Plan,
        requests: Requests,
        jobs: int = 1,
        devices: tuple[str, ...] = (),
        stream: TextIO | None = None,
    ):
        if jobs < 1:
            raise ConfigError(f"--jobs {jobs}: at least one piece has to run at once; give 1 or more")
        if devices and jobs > len(devices):
            raise ConfigError(f"--jobs {jobs} with {len(devices)} devices: at most one job a device; lower --jobs")
        self.plan = plan
        self.requests = requests
        self.jobs = jobs
        self.devices = devices
        self.stream = stream or sys.stdout
        self.states = {i: piece_state(piece, requests)[0] for i, piece in plan.pieces.items()}
        self.order = self._order()
        self.running: dict[int, Process] = {}  # by slot
        self.failed: dict[str, list[str]] = {}
        self.stopped: set[str] = set()  # by a request, in this run
        self.interrupts = 0
        self.began = time.monotonic()

    def run(self) -> int:
        """FINISHED, FAILED, STOPPED or, where pieces were ended at once, INTERRUPTED; call it inside `alone_in`."""
        previous = {number: signal.signal(number, self._interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            return self._run()
        finally:
            for process in self.running.values():
                process.kill()
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _run(self) -> int:
        self.requests.save()
        self._say(self._summary())
        asked, said = 0, time.monotonic()
        while True:
            for slot, process in list(self.running.items()):
                if (status := process.poll()) is not None:
                    del self.running[slot]
                    self._end(process, status)
            if self.interrupts > asked:
                asked = self.interrupts
                self._stop(at_once=asked > 1)
            if not self.interrupts:
                self._start_ready()
            if not self.running:
                break
            if time.monotonic() - said > SAY_EVERY_S and not self.interrupts:
                said = time.monotonic()
                self._say_running()
            time.sleep(POLL_S)
        return self._conclude()

    # Starting and ending pieces.

    def _order(self) -> list[Piece]:
        """What is half done before what is new. Side by side, before both what others wait for: a pre-training begun
        late would run on alone in the end.
        """
        pieces = self.plan.pieces.values()
        needed = {need for piece in pieces for need in piece.needs}
        half_done = {piece.id for piece in pieces if self.states[piece.id] in ("started", "stopped")}
        return sorted(pieces, key=lambda piece: (self.jobs > 1 and piece.id not in needed, piece.id not in half_done))

    def _start_ready(self) -> None:
        for piece in self.order:
            if len(self.running) >= self.jobs or any(p.piece.launcher for p in self.running.values()):
                return
            if not self._is_ready(piece) or (piece.launcher and self.running):
                continue
            slot = next(s for s in range(self.jobs) if s not in self.running)
            own = self.jobs if not piece.launcher else 1
            resumed = self.states[piece.id] != "new"
            record = read_record(piece.folder)
            record.request = self.requests.by_id[piece.id]
            try:
                process = Process(piece, environment(slot, own, () if piece.launcher else self.devices))
            except ConfigError as error:
                self._fail(piece, record, str(error), [])
                continue
            self.running[slot] = process
            self.states[piece.id] = "running"
            write_record(piece, Record("started", record.seconds, record.request, process.id))
            self._say(f"{self._place()} {'resumed' if resumed else 'started'}: {piece.title}   (log: {process.log})")

    def _is_ready(self, piece: Piece) -> bool:
        if self.states[piece.id] in ("finished", "running") or piece.id in self.failed or piece.id in self.stopped:
            return False
        return all(self.states[need] == "finished" for need in piece.needs)

    def _end(self, process: Process, status: int) -> None:
        piece = process.piece
        record = read_record(piece.folder)
        record.seconds += process.seconds
        record.request, record.process = self.requests.by_id[piece.id], None
        if status == 0 and is_complete(piece):
            self.states[piece.id] = record.state = "finished"
            write_record(piece, record)
            if piece.removes is not None:
                shutil.rmtree(piece.removes, ignore_errors=True)
            self._say(f"{self._place()} finished: {piece.title} in {duration(process.seconds)}; {self._times()}")
        elif self.interrupts or status == STOPPED:
            self.states[piece.id] = record.state = "stopped"
            write_record(piece, record)
            self.stopped.add(piece.id)
            self._say(f"stopped: {piece.title} after {duration(process.seconds)}; the same command continues it")
        else:
            reason = f"exit status {status}" if status else "it ended before its work was done"
            self._fail(piece, record, reason, last_lines(process.log))

    def _fail(self, piece: Piece, record: Record, reason: str, lines: list[str]) -> None:
        self.states[piece.id] = record.state = "failed"
        write_record(piece, record)
        self.failed[piece.id] = lines
        shown = "".join(f"\n    | {line}" for line in lines)
        self._say(f"{self._place()} FAILED: {piece.title} ({reason}); {piece.folder / LOG_FILE} ends with{shown}")

    def _stop(self, at_once: bool) -> None:
        for process in self.running.values():
            if at_once:
                process.kill()
            else:
                process.ask_to_stop()
        if self.running and not at_once:
            self._say("stopping: what runs saves first (once more: end it at once)")

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.interrupts += 1

    # What is said.

    def _say(self, text: str) -> None:
        print(text, file=self.stream, flush=True)

    def _finished(self) -> int:
        return sum(state == "finished" for state in self.states.values())

    def _place(self) -> str:
        return f"[{self._finished()}/{len(self.states)}]"

    def _summary(self) -> str:
        half = sum(state in ("started", "stopped", "failed") for state in self.states.values())
        text = f"{self.requests.output}: {len(self.states)} pieces of work, {self._finished()} finished"
        return text + (f", {half} to be resumed" if half else "")

    def _say_running(self) -> None:
        for process in self.running.values():
            lines = last_lines(process.log, 1)
            tail = f": {lines[0][:160]}" if lines else ""
            self._say(f"    {process.piece.title}, {duration(process.seconds)}{tail}")

    def _times(self) -> str:
        seconds, all_known = self._seconds_left()
        text = f"{duration(time.monotonic() - self.began)} spent"
        return f"{text}, {'about' if all_known else 'at least'} {duration(seconds)} left" if seconds else text

    def _seconds_left(self) -> tuple[float, bool]:
        """From the times of finished pieces of the same kind and share, or of the kind; whether all kinds are known.

        What failed, was stopped or needs such a piece does not count: this start does not come to it.
        """
        known: dict[tuple[str, float | None], list[float]] = {}
        for piece in self.plan.pieces.values():
            if self.states[piece.id] == "finished":
                seconds = read_record(piece.folder).seconds
                known.setdefault((piece.kind, piece.share), []).append(seconds)
                known.setdefault((piece.kind, None), []).append(seconds)
        total, all_known = 0.0, True
        lost = {*self.failed, *self.stopped}
        for piece in self.plan.pieces.values():
            if lost.intersection(piece.needs):
                lost.add(piece.id)
            if self.states[piece.id] != "finished" and piece.id not in lost:
                times = known.get((piece.kind, piece.share)) or known.get((piece.kind, None))
                total += sum(times) / len(times) if times else 0.0
                all_known = all_known and times is not None
        return total / self.jobs, all_known

    def _conclude(self) -> int:
        if self.interrupts:
            self._say(f"stopped with {self._finished()} of {len(self.states)} pieces finished")
            return STOPPED if self.interrupts == 1 else INTERRUPTED
        ended = {*self.failed, *self.stopped}
        blocked = [i for i, state in self.states.items() if state != "finished" and i not in ended]
        if self.failed:
            names = ", ".join(self.failed)
            waiting = f"; {len(blocked)} more need them: {', '.join(blocked)}" if blocked else ""
            self._say(
                f"{len(self.failed)} of {len(self.states)} pieces failed: {names}{waiting}. Run again to try again"
            )
            return FAILED
        if self.stopped:
            self._say(f"stopped as asked: {', '.join(sorted(self.stopped))}; the same command continues")
            return STOPPED
        self._say(f"all {len(self.states)} pieces are finished; {duration(time.monotonic() - self.began)} spent")
        return FINISHED


def describe_plan(plan: Plan, requests: Requests) -> list[str]:
    """One line a piece: its state, id and command; what --dry_run prints."""
    lines = []
    for piece in plan.pieces.values():
        state, changes = piece_state(piece, requests)
        lines.append(f"{state:9} {piece.id}   ({piece.title})" + (f": {'; '.join(changes)}" if changes else ""))
        if state != "finished":
            lines.append(f"          $ {' '.join(piece.command())}")
    return lines
