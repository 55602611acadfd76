"""Whether training would wait for sentences of a distant server: ranks that take steps at a GPU's pace.

Every rank is a process with the loader of a real run. It takes its part of a step, is busy for as long as a GPU would
be, and counts what it waits for the next. What it reads goes through the one cache of the node.
"""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from spe_dist.benchmark.data.server import TRAFFIC
from spe_dist.config.pretraining import CorruptionConfig
from spe_dist.data.shards.store import ShardStore
from spe_dist.errors import LaunchError

if TYPE_CHECKING:
    from spe_dist.data.batches.order import Order


@dataclass(frozen=True)
class Line:
    """How far away the server is."""

    latency_s: float
    bytes_per_s: float
    has_ranges: bool = True


@dataclass(frozen=True)
class Demand:
    """What all ranks together take."""

    ranks: int
    global_batch: int
    sentences_per_s: float
    steps: int
    by_shards: bool = False
    only_reads: bool = False  # sentences are neither corrupted nor packed: the cores then hold up higher rates


@dataclass(frozen=True)
class Waiting:
    """Of all ranks; the first step stands apart, because a run waits for it once."""

    first_step_s: float  # of the slowest rank
    waited_share: float  # of the time after the first step, mean over the ranks
    longest_s: float  # wait for a step after the first
    sentences_per_s: float
    read_bytes: int  # that the server sent of shards, 0 for a folder
    used_bytes: int  # of the blocks that the steps hold


class _Pace(NamedTuple):
    """Of one rank. Small, because nothing reads the queue of results before all ranks have ended."""

    first_step_s: float
    waited_s: float  # for the steps after the first
    longest_s: float
    seconds: float  # of the steps after the first


@contextmanager
def served(folder: Path, line: Line) -> Iterator[str]:
    """The URL at which a server process gives the files of `folder`."""
    command = [sys.executable, "-m", "spe_dist.benchmark.data.server", str(folder)]
    command += ["--latency_s", str(line.latency_s), "--bytes_per_s", str(line.bytes_per_s)]
    command += [] if line.has_ranges else ["--no_ranges"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()
            process.wait(timeout=30)


def traffic(url: str) -> int:
    """Bytes of files that the server has sent."""
    with urllib.request.urlopen(url + TRAFFIC) as answer:
        return int(json.load(answer)["bytes"])


def measure_waiting(source: str, cache: Path, demand: Demand) -> Waiting:
    """Run the ranks over the shards at `source`. Raises LaunchError where one of them fails."""
    context = multiprocessing.get_context("fork")
    results: Any = context.SimpleQueue()
    store = ShardStore.open(source, cache_dir=str(cache))
    before = 0 if store.is_local else traffic(source)
    ranks = [context.Process(target=_rank, args=(source, cache, demand, rank, results)) for rank in range(demand.ranks)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    if any(process.exitcode for process in ranks):
        raise LaunchError("a rank of the measurement failed; see above")
    found: list[_Pace] = [results.get() for _ in ranks]
    return Waiting(
        first_step_s=max(pace.first_step_s for pace in found),
        waited_share=sum(pace.waited_s / pace.seconds for pace in found) / len(found),
        longest_s=max(pace.longest_s for pace in found),
        sentences_per_s=demand.global_batch * (demand.steps - 1) / max(pace.seconds for pace in found),
        read_bytes=0 if store.is_local else traffic(source) - before,
        used_bytes=_used_bytes(store, demand),
    )


def _rank(source: str, cache: Path, demand: Demand, rank: int, results: Any) -> None:
    import torch

    from spe_dist.data.batches.loader import step_loader
    from spe_dist.data.batches.stream import StepBuilder

    torch.set_num_threads(1)
    store = ShardStore.open(source, cache_dir=str(cache))
    store.has_ranges()
    began = time.monotonic()
    share = demand.global_batch // demand.ranks
    builder = StepBuilder(store, CorruptionConfig(), _order(store, demand), share, rank, demand.ranks)
    if demand.only_reads:  # in this process, not a step ahead
        results.put(_paced(map(builder.read, range(demand.steps)), began, demand))
        return
    steps = step_loader(builder, 0, demand.steps, loader_workers=1, prefetch_steps=8)
    results.put(_paced(steps, began, demand))
    steps.close()


def _order(store: ShardStore, demand: Demand) -> Order:
    from spe_dist.data.batches.order import Order

    shard_blocks = store.shard_blocks if demand.by_shards else None
    return Order(store.block_sentences, 0, 0, demand.global_batch, shard_blocks=shard_blocks)


def _paced(steps: Iterator[object], began: float, demand: Demand) -> _Pace:
    """Take all steps at the demanded pace."""
    next(steps)
    first_s, started = time.monotonic() - began, time.monotonic()
    waits, busy_s = [], demand.global_batch / demand.sentences_per_s
    due = started + busy_s
    for _ in range(demand.steps - 1):
        time.sleep(max(0.0, due - time.monotonic()))
        asked = time.monotonic()
        next(steps)
        waits.append(time.monotonic() - asked)
        due = max(due + waits[-1], asked) + busy_s
    return _Pace(first_s, sum(waits), max(waits), time.monotonic() - started)


def _used_bytes(store: ShardStore, demand: Demand) -> int:
    """Bytes of the different blocks that the steps hold."""
    import numpy as np

    order = _order(store, demand)
    used = np.zeros(len(store.block_sentences), dtype=bool)
    for step in range(demand.steps):
        used[order.slots(step, 0, demand.global_batch).blocks_N] = True
    sizes = np.concatenate([shard.blocks.column("bytes") for shard in store.manifest.shards("train")])
    return int(sizes[used].sum(dtype=np.int64))
