"""Several batches at a time, each on a thread of its own.

torch spreads every kernel over its threads and waits at the end for the slowest. Beside other processes that is the
thread whose core another process has just taken, and the others spin meanwhile. Here a batch is computed by one thread
from its first kernel to its last, so a thread that is held up delays its own batch alone; torch releases Python's lock
inside its kernels, so the threads compute at the same time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_WORKERS = 8  # more would wait for Python's lock; cores beyond are shared out among them
LEAST_PIECES = 1024  # of a batch, where there are enough: in smaller ones the overhead of each kernel shows
LEAST_PIECES_OF_SMALL_INPUTS = 256


class BatchWorkers:
    """Threads that compute batches; they start with the first one and end with this object."""

    def __init__(self, threads: int) -> None:
        """`threads`: how many torch would use for one batch; the workers share them."""
        assert threads > 0
        self.threads = threads
        self.count = min(threads, MOST_WORKERS)
        self._executor: ThreadPoolExecutor | None = None
        self._process = 0

    def __reduce__(self) -> tuple[type[BatchWorkers], tuple[int]]:
        """A copy starts threads of its own."""
        return BatchWorkers, (self.threads,)

    def batch_pieces(self, batch_pieces: int, all_pieces: int) -> int:
        """Pieces of each worker's batch: all batches that are computed at a time share `batch_pieces`.

        `all_pieces` of the input are divided so that no worker ends long before the others.
        """
        share = min(batch_pieces, max(LEAST_PIECES, -(-batch_pieces // self.count)))
        rounds = -(-all_pieces // (share * self.count))
        return min(share, max(LEAST_PIECES_OF_SMALL_INPUTS, -(-all_pieces // max(1, rounds * self.count))))

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """function(item) for each item, in order. When it is left early, what has not begun is not computed."""
        executor = self._running()
        futures = [executor.submit(function, item) for item in items]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()
            wait(futures)

    def _running(self) -> ThreadPoolExecutor:
        if self._executor is None or self._process != os.getpid():  # a forked process has no threads of its parent
            self._executor, self._process = self._start(), os.getpid()
        return self._executor

    def _start(self) -> ThreadPoolExecutor:
        before = torch.get_num_threads()
        executor = ThreadPoolExecutor(self.count, "spe-predict", _set_threads, (self.threads // self.count,))
        all_started = threading.Barrier(self.count + 1)
        for _ in range(self.count):
            executor.submit(all_started.wait)
        all_started.wait()
        torch.set_num_threads(before)  # torch gives threads that start later the number that was set last
        return executor


def _set_threads(threads: int) -> None:
    torch.get_num_threads()  # a thread's first use of torch sets its number: it must not come after ours
    torch.set_num_threads(threads)
