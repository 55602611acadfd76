"""Prediction on a CPU beside other busy processes, in several ways, compared where the machine itself is busy.

Each way is a process of its own, since OpenMP takes its settings from the environment when torch is loaded. All are
loaded first; then they measure in turn, once for each number of neighbours, and that again for each repetition, so that
whatever else the machine does weighs on all of them alike. Medians of the repetitions are compared.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import median
from typing import Any

from spe_dist.errors import LaunchError
from spe_dist.utils.tables import aligned
from spe_dist.utils.threads import SETTINGS_OF_WAITING, THREADS, WAIT_POLICY
from spe_dist.utils.wording import how_many

PASSIVE = {WAIT_POLICY: "PASSIVE"}
_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Way:
    """How prediction uses the cores. `one_batch`: torch splits one batch over its threads."""

    name: str
    threads: int
    one_batch: bool = False
    environment: Mapping[str, str] | None = None  # of OpenMP


@dataclass(frozen=True)
class Rate:
    """One measurement. `unhindered_per_s`: of the time without what any thread waited for a core, at least that."""

    sentences_per_s: float
    sentences_per_cpu_s: float
    unhindered_per_s: float


@dataclass(frozen=True)
class Work:
    """What is predicted: the first `sentences` of a corpus, with a fine-tuned model."""

    model: str
    corpus: str
    sentences: int
    bfloat16: bool | None


def ways(threads: int) -> list[Way]:
    """One batch a thread, as `Extractor` works; and a single batch at a time for all threads, or for one."""
    found = [Way(f"{threads} batches, a thread each", threads)]
    if threads > 1:
        found += [
            Way(f"1 batch, {threads} threads", threads, one_batch=True),
            Way(f"1 batch, {threads} threads, passive", threads, one_batch=True, environment=PASSIVE),
        ]
    return [*found, Way("1 batch, 1 thread", 1)]


def measure(
    work: Work, compared: Sequence[Way], neighbours: Sequence[int], repeats: int
) -> dict[tuple[str, int], list[Rate]]:
    """All rates by way and number of neighbours.

    Raises:
        LaunchError: a process ended before it had measured; its own message stands above.
    """
    rates: dict[tuple[str, int], list[Rate]] = {(way.name, n): [] for way in compared for n in neighbours}
    runners: dict[str, tuple[BaseProcess, Connection]] = {}
    try:
        for way in compared:
            runners[way.name] = _start(work, way)
            _receive(way, runners[way.name][1])  # one at a time: loading is what the others would wait for
        for _ in range(repeats):
            for count in neighbours:
                with busy_neighbours(count):
                    for way in compared:
                        connection = runners[way.name][1]
                        connection.send(None)
                        rates[way.name, count].append(_receive(way, connection))
    finally:
        for process, connection in runners.values():
            connection.close()  # the runner ends
            process.join(timeout=5)
            process.kill()
    return rates


def table(rates: Mapping[tuple[str, int], Sequence[Rate]], compared: Sequence[Way], quiet: int) -> list[str]:
    """Medians in lines: sentences/s for each number of neighbours, and their share of the rate with `quiet` ones.

    With the fewest neighbours also: sentences a CPU second, and the best unhindered rate, which is what a quiet machine
    gives at least.
    """
    counts = sorted({count for _, count in rates})
    rows = [["", *(how_many(count, "neighbour") for count in counts), "a CPU second", "unhindered"]]
    for way in compared:
        medians = {count: median(rate.sentences_per_s for rate in rates[way.name, count]) for count in counts}
        cells = [f"{medians[count]:.1f}/s {medians[count] / medians[quiet]:>5.0%}" for count in counts]
        fewest = rates[way.name, counts[0]]
        cells.append(f"{median(rate.sentences_per_cpu_s for rate in fewest):.1f}")
        rows.append([way.name, *cells, f"{max(rate.unhindered_per_s for rate in fewest):.1f}/s"])
    return aligned(rows, rule=True)


@contextmanager
def busy_neighbours(count: int) -> Iterator[None]:
    """`count` processes that each want a core all the time, while the block lasts."""
    processes = [_SPAWN.Process(target=_be_busy, args=(os.getpid(),), daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        if processes:
            time.sleep(1)  # until all have started
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def _be_busy(parent: int) -> None:
    while os.getppid() == parent:
        for _ in range(100_000):
            pass


def _start(work: Work, way: Way) -> tuple[BaseProcess, Connection]:
    here, there = _SPAWN.Pipe()
    process = _SPAWN.Process(target=_run, args=(there, work, way), daemon=True)
    before = dict(os.environ)
    for name in (*SETTINGS_OF_WAITING, THREADS):
        os.environ.pop(name, None)
    os.environ |= dict(way.environment or {})
    try:
        process.start()
    finally:
        os.environ.clear()
        os.environ |= before
    there.close()
    return process, here


def _receive(way: Way, connection: Connection) -> Any:
    try:
        return connection.recv()
    except EOFError:
        raise LaunchError(f"the process that measures {way.name!r} ended; its message stands above") from None


def _run(connection: Connection, work: Work, way: Way) -> None:
    """Load, say so, then measure whenever asked."""
    import torch

    from spe_dist.extraction.formats import read_corpus
    from spe_dist.extraction.predicting.extractor import Extractor
    from spe_dist.utils.memory import tune_memory

    tune_memory()
    torch.set_num_threads(way.threads)
    extractor = Extractor.from_pretrained(work.model, "cpu", bfloat16=work.bfloat16)
    corpus = read_corpus(work.corpus)
    tagged = [(n, s) for n, document in enumerate(corpus.documents) for s in document.sentences][: work.sentences]

    def predict() -> None:
        for _ in extractor.predict_tagged(tagged, lambda number: number, workers=not way.one_batch):
            pass

    predict()  # what is made at the first time
    connection.send(None)
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        waited = _waits_for_a_core()
        began, cpu_began = time.perf_counter(), time.process_time()
        predict()
        seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
        longest = max((wait - waited.get(thread, 0.0) for thread, wait in _waits_for_a_core().items()), default=0.0)
        connection.send(Rate(*(len(tagged) / s for s in (seconds, cpu_s, seconds - longest))))


def _waits_for_a_core() -> dict[str, float]:
    """Seconds that each thread of this process was ready and had no core, by the thread's number; empty elsewhere."""
    waits = {}
    for file in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            waits[file.parent.name] = int(file.read_text().split()[1]) / 1e9
    return waits
