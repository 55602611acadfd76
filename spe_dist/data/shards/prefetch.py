"""Fetching ahead: what will be needed is brought into the cache by threads while others train."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from typing import Any

from spe_dist.errors import DataError


class Prefetcher:
    """Calls `fetch(key)` for wanted keys in the background, in their order.

    Errors are left to whoever needs the key and fetches it then. A process that was forked starts threads of its own;
    they end with it.
    """

    def __init__(self, fetch: Callable[[Any], None], threads: int) -> None:
        self._fetch = fetch
        self._threads = threads
        self._process = 0
        self._pending: set[Any] = set()

    def want(self, key: Any) -> None:
        """Fetch this key some time soon; returns at once."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._pending = set()
            self._waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
            for _ in range(self._threads):
                threading.Thread(target=self._work, args=(self._waiting, self._pending), daemon=True).start()
        if key not in self._pending:
            self._pending.add(key)
            self._waiting.put(key)

    def _work(self, waiting: queue.SimpleQueue[Any], pending: set[Any]) -> None:
        while True:
            key = waiting.get()
            try:
                self._fetch(key)
            except (DataError, OSError):
                pass
            finally:
                pending.discard(key)
