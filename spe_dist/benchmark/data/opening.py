"""What a process pays for an index of blocks: seconds and memory, measured in a process of its own."""

from __future__ import annotations

import itertools
import json
import pickle
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from spe_dist.errors import LaunchError


@dataclass(frozen=True)
class Opening:
    """Of one process; memory is what it has more than before, in MiB, resident and counted as its own."""

    open_s: float
    open_mib: float
    hash_s: float
    order_s: float  # the order of a run and the blocks of its first step
    order_mib: float  # after both
    pickle_bytes: int  # of the store, which goes to each loader process
    reopen_s: float


def measure_opening(folder: Path) -> Opening:
    """Open the shards in `folder` in a fresh process. Raises LaunchError."""
    command = [sys.executable, "-m", "spe_dist.benchmark.data.opening", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise LaunchError(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stderr}")
    return Opening(**json.loads(done.stdout))


def _measure(folder: Path) -> Opening:
    import psutil

    from spe_dist.data.batches.order import Order
    from spe_dist.data.shards.store import ShardStore

    process = psutil.Process()
    before = process.memory_info().rss
    times = [time.perf_counter()]
    store = ShardStore.open(str(folder))
    times.append(time.perf_counter())
    opened = process.memory_info().rss
    manifest_hash = store.manifest.hash()
    times.append(time.perf_counter())
    Order(store.block_sentences, 0, 0, 256, manifest_hash).slots(0, 0, 256)
    times.append(time.perf_counter())
    ordered = process.memory_info().rss
    parcel = pickle.dumps(store)
    times.append(time.perf_counter())
    pickle.loads(parcel)
    times.append(time.perf_counter())
    spans = [after - start for start, after in itertools.pairwise(times)]
    return Opening(
        spans[0], (opened - before) / 2**20, spans[1], spans[2], (ordered - before) / 2**20, len(parcel), spans[4]
    )


if __name__ == "__main__":
    print(json.dumps(asdict(_measure(Path(sys.argv[1])))))
