"""Worker processes: one function over many tasks in several of them, and none left behind by a killed program."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from spe_dist.errors import LaunchError

Task = TypeVar("Task")
Result = TypeVar("Result")
TASKS_IN_FLIGHT = 3  # for each process: bounds the memory that waiting tasks take


def available_processes() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_order(function: Callable[[Task], Result], tasks: Iterable[Task], processes: int) -> Iterator[Result]:
    """function(task) for each task, in order; in this process where `processes` is 1.

    Tasks are drawn as they are needed.

    Raises:
        LaunchError: a process was killed, most often because memory ran out.
    """
    if processes <= 1:
        yield from map(function, tasks)
        return
    executor = _executor(processes)
    running: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            running.append(_submit(executor, function, task))
            if len(running) >= processes * TASKS_IN_FLIGHT:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    except BrokenProcessPool as error:
        raise LaunchError(
            f"one of {processes} worker processes was killed, most often because memory ran out; run the same command "
            "again (it continues where it stopped), with fewer processes"
        ) from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def end_with_parent(forked: bool) -> None:
    """Call it in a worker process: once the process that asked for the worker has died, this one ends within a second.

    It ends whatever it waits for: a task, room in a pipe that nobody reads, a thread of its own. `forked`: that process
    made the worker itself, by fork or spawn; a worker of a fork server has the server as its parent.
    """
    threading.Thread(target=_end_with_parent, args=(forked,), daemon=True).start()


def _end_with_parent(forked: bool) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None and parent.pid is not None, "only worker processes call this"
    if forked:  # `is_alive` looks at a pipe of which processes that were forked later hold the end too
        _end_after(parent.pid)
    while parent.is_alive():
        time.sleep(0.2)
    os._exit(1)


def _end_after(parent: int) -> None:
    """End this process once that one, which forked it, has ended."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


_watched_parent: int | None = None  # the process that forks next, while `forks_end_with_this_process`


@contextmanager
def forks_end_with_this_process() -> Iterator[None]:
    """What is forked in this context, by whatever library, and what that forks, ends within a second of its parent."""
    global _watched_parent
    _watched_parent = os.getpid()
    try:
        yield
    finally:
        _watched_parent = None


def _watch_parent() -> None:
    global _watched_parent
    if _watched_parent is not None:
        parent, _watched_parent = _watched_parent, os.getpid()
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_watch_parent)


def _executor(processes: int) -> ProcessPoolExecutor:
    """Forked where that exists: workers start at once, and the calling program needs no import guard."""
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    return ProcessPoolExecutor(processes, multiprocessing.get_context(method), initializer=_start_worker)


def _submit(executor: ProcessPoolExecutor, function: Callable[..., Result], task: Any) -> Future[Result]:
    with warnings.catch_warnings():
        # Python warns of forking beside other threads; here these are idle pools of numerical libraries, which the
        # workers do not use.
        warnings.simplefilter("ignore", DeprecationWarning)
        return executor.submit(function, task)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    end_with_parent(forked=True)
