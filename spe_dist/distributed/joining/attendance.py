"""Which ranks arrive: on each rank a thread that notices when the rank waits for others too long, and calls the roll.

A collective that times out says that some rank is missing, not which. Here the first rank that has waited for
`timeout_s` raises an alarm in the store that the ranks met at, and the threads of all ranks answer with what their main
thread is doing. Whoever does not answer is stopped, hangs as a whole or is gone; whoever answers without waiting is
still at work. The rank that raised the alarm reads the answers and leaves in the store who was absent: were all to read
all, a thousand ranks would ask one store for millions. Each waiting rank names them in one line and ends. Where all
answer and wait, nothing is ended: the collectives' own time limit, which is `MARGIN_S` longer, decides then.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

POLL_S = 1.0  # between looks at the alarm
STILL_S = 10.0  # that the main thread must do one and the same, before its rank looks: a run that goes on never does
ANSWERS_S = 4.0  # that others have to answer
CALLER_S = 2.0  # more, after which the rank that called the roll does not say who was absent: each reads for itself
STORE_S = 5.0  # more than ANSWERS_S, after which the store itself does not answer
MARGIN_S = 30.0  # by which collectives wait longer than a rank does before it calls the roll
MOST_NAMED = 8  # of ranks that are absent
LAST_LINE_S = 1.0  # for the others to say the same, before the launcher ends them
FAILED = 1  # exit status, as `spe_dist.cli.exits` has it
AT_WORK = "at work"
_started: list[Attendance] = []


class Store(Protocol):
    """What is used of torch.distributed.TCPStore."""

    def set(self, key: str, value: str) -> None: ...

    def get(self, key: str) -> bytes: ...

    def check(self, keys: list[str]) -> bool: ...


@dataclass(frozen=True)
class Answer:
    """What a rank says of itself."""

    step: int
    waits: bool
    doing: str


class Attendance:
    """What this rank's main thread is doing, and the threads that watch it and the other ranks.

    The main thread marks where it may wait for others (`waiting`), what else takes long (`doing`) and its step.
    """

    def __init__(
        self,
        connect: Callable[[], Store],
        rank: int,
        ranks: int,
        timeout_s: float,
        node: str,
        end: Callable[[str], None] | None = None,
    ) -> None:
        """`connect`: a connection of its own to the ranks' store. `end`: takes the line and ends this rank."""
        self.rank, self.ranks, self.timeout_s, self.node = rank, ranks, timeout_s, node
        self.step = 0
        self._doing = AT_WORK
        self._waiting_since: float | None = None
        self._main = threading.get_ident()  # the one thread that is watched
        self._connect, self._end = connect, end or self._end_process
        self._changed = time.monotonic()  # when the main thread last began or ended something
        self._poll_s, self._still_s = min(POLL_S, timeout_s / 4), min(STILL_S, timeout_s / 4)
        self._closed, self._roll_is_wanted, self._roll_is_there = (threading.Event() for _ in range(3))
        self._line: str | None = None
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._watch, self._answer)]

    def start(self) -> Attendance:
        """Start watching."""
        _started.append(self)
        for thread in self._threads:
            thread.start()
        return self

    def close(self) -> None:
        """Stop watching, before the store goes."""
        self._closed.set()
        self._roll_is_there.set()
        for thread in self._threads:
            thread.join(timeout=2 * POLL_S)
        with contextlib.suppress(ValueError):
            _started.remove(self)

    @property
    def waiting(self) -> AbstractContextManager[None]:
        """Inside, the main thread may wait for other ranks. Other threads, such as one that saves, do not count."""
        return self._marked("_waiting_since", time.monotonic())

    def doing(self, what: str) -> AbstractContextManager[None]:
        """Inside, the main thread is busy with `what`, and waits for nobody."""
        return self._marked("_doing", what)

    def _marked(self, name: str, value: Any) -> AbstractContextManager[None]:
        in_main = threading.get_ident() == self._main
        return _Marked(self, name, value) if in_main else contextlib.nullcontext()

    def _now(self) -> Answer:
        return Answer(self.step, self._waiting_since is not None, self._doing)

    def _has_waited(self) -> bool:
        since = self._waiting_since
        return since is not None and time.monotonic() - since > self.timeout_s

    def _watch(self) -> None:
        """End this rank where it has waited too long, or waits while another calls the roll, and some do not wait."""
        while not self._roll_is_wanted.wait(self._poll_s):
            if self._closed.is_set():
                return
            if self._has_waited():
                self._roll_is_wanted.set()
        came = self._roll_is_there.wait(ANSWERS_S + STORE_S)
        if self._closed.is_set() or self._waiting_since is None:
            return
        if not came:
            self._line = self._describe(["rank 0 does not answer"], "the ranks' store is with it")
        if self._line is not None:
            self._end(self._line)
        else:
            print(
                f"warning: rank {self.rank} has waited for {self.timeout_s:g} s in step {self.step}, and so have all "
                "others: the network between them or a device hangs, or timeout_s is too short for this work",
                file=sys.stderr,
                flush=True,
            )

    def _answer(self) -> None:
        """Answer the first roll call, this rank's own included, and wait for the answers of others."""
        with contextlib.suppress(Exception):  # the store goes with rank 0
            store = self._connect()
            store.set(f"node/{self.rank}", self.node)
            while not self._closed.wait(self._poll_s):
                if self._roll_is_wanted.is_set():
                    store.set("alarm", str(self.rank))
                    break
                still = time.monotonic() - self._changed > self._still_s
                if still and store.check(["alarm"]):
                    break
            else:
                return
            store.set(f"answer/{self.rank}", json.dumps(vars(self._now())))
            self._roll_is_wanted.set()
            time.sleep(ANSWERS_S)
            absent = self._absent(store)
            if absent:
                self._line = self._describe(absent)
            self._roll_is_there.set()

    def _absent(self, store: Store) -> list[str]:
        """Who is absent and why, in words, as the rank that called the roll has found."""
        if _read(store, "alarm") != self.rank:
            deadline = time.monotonic() + CALLER_S
            while time.monotonic() < deadline and not store.check(["absent"]):
                time.sleep(self._poll_s / 4)
            found: list[str] | None = _read(store, "absent")
            if found is not None:
                return found
        names: list[str] = []
        for rank in range(self.ranks):
            answer = _read(store, f"answer/{rank}")
            if answer is None or not answer["waits"]:
                node = _read(store, f"node/{rank}", str) if len(names) < MOST_NAMED else None
                state = "does not answer" if answer is None else f"is {answer['doing']} in step {answer['step']}"
                names.append(f"rank {rank}{f' on {node}' if node else ''} {state}")
        store.set("absent", json.dumps(names))
        return names

    def _describe(self, absent: Sequence[str], reason: str = "") -> str:
        more = len(absent) - MOST_NAMED
        shown = "; ".join(absent[:MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")
        return (
            f"rank {self.rank} has waited for {self.timeout_s:g} s (timeout_s) in step {self.step}: {shown}"
            f"{f' ({reason})' if reason else ''}. Checkpoints are kept; look at that machine, and continue with "
            "--resume auto"
        )

    def _end_process(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            print(f"{f'rank {self.rank}: ' if self.rank else ''}error: {line}", file=sys.stderr, flush=True)
        time.sleep(LAST_LINE_S)
        os._exit(FAILED)  # the main thread is inside a collective, which nothing else ends


class _Marked:
    """Sets an attribute for the length of a `with` block; the outermost block counts."""

    def __init__(self, attendance: Attendance, name: str, value: Any) -> None:
        self._attendance, self._name, self._value = attendance, name, value

    def __enter__(self) -> None:
        self._before = getattr(self._attendance, self._name)
        self._attendance._changed = time.monotonic()
        if self._before in (None, AT_WORK):
            setattr(self._attendance, self._name, self._value)

    def __exit__(self, *_: object) -> None:
        self._attendance._changed = time.monotonic()
        setattr(self._attendance, self._name, self._before)


def close_all() -> None:
    """Stop watching, where this process ends with an error of its own."""
    for attendance in list(_started):
        attendance.close()


def _read(store: Store, key: str, kind: Callable[[str], Any] = json.loads) -> Any:
    return kind(store.get(key).decode()) if store.check([key]) else None
