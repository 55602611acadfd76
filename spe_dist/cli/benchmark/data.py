"""The options of `spe benchmark data`, and what it prints."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from spe_dist.cli.options.extras import TO_TRAIN, require
from spe_dist.cli.options.numbers import number, whole_number
from spe_dist.cli.options.parser import Parser
from spe_dist.errors import ConfigError


def parser() -> Parser:
    """The options of `spe benchmark data`."""
    doc = (
        "Measures reading of large amounts of text, with made-up shards: what a process pays for an index of many "
        "blocks; whether ranks that take steps at a GPU's pace wait for a server with latency and a limited rate, with "
        "ranges and with whole shards, beside a local folder; and what reading shard by shard loses.\n\n"
        "All ranks and the server share this machine's cores: lower --rate where the row of the folder waits too."
    )
    command = Parser("spe benchmark data", "[options]", doc)
    add = command.add_argument
    add("--blocks", type=whole_number(1), default=1_000_000, metavar="N", help="blocks of the index that is opened")
    add("--rounds", type=whole_number(1), default=5, metavar="N", help="times that it is opened")
    add("--ranks", type=whole_number(1), default=8, metavar="N", help="ranks on this node")
    add("--batch", type=whole_number(1), default=256, metavar="N", help="sentences of a step over all ranks")
    add("--rate", type=number(1), default=12_000.0, metavar="X", help="sentences a second that all ranks take")
    add("--sentences", type=whole_number(1), default=512_000, metavar="N", help="in the shards; each is read once")
    add("--latency_ms", type=number(0), default=50.0, metavar="X", help="before the server answers")
    add("--mb_per_s", type=number(0.001), default=20.0, metavar="X", help="that the server sends, altogether")
    add("--only_read", action="store_true", help="sentences are neither corrupted nor packed: for higher rates")
    return command


def run(options: argparse.Namespace) -> None:
    """Measure, then print three tables."""
    require(*TO_TRAIN, "webdataset", "psutil")
    from spe_dist.benchmark.machine import Start, machine_line

    if options.batch % options.ranks or options.sentences < 2 * options.batch:
        raise ConfigError(
            f"--batch {options.batch}, --ranks {options.ranks}, --sentences {options.sentences}: choose a multiple of "
            f"the ranks, and at least two batches of sentences"
        )
    start = Start.now()
    with tempfile.TemporaryDirectory() as scratch:
        _print_opening(Path(scratch), options.blocks, options.rounds)
        _print_waiting(Path(scratch), options)
        _print_mixing()
    print(f"\n{machine_line(start)}")


def _print_opening(scratch: Path, blocks: int, rounds: int) -> None:
    from statistics import median

    from spe_dist.benchmark.data.made_up import write_index
    from spe_dist.benchmark.data.opening import measure_opening
    from spe_dist.utils.tables import aligned

    folder = scratch / "index"
    folder.mkdir()
    write_index(folder, blocks)
    found = [measure_opening(folder) for _ in range(rounds)]
    size = sum(file.stat().st_size for file in folder.iterdir())
    rows = [[f"index of {blocks:,} blocks, {size / 1e6:.0f} MB", "seconds", "MiB more a process"]]
    for name, seconds, mib in (
        ("opened and checked", [f.open_s for f in found], [f.open_mib for f in found]),
        ("hash of the manifest", [f.hash_s for f in found], None),
        ("order of an epoch, in all", [f.order_s for f in found], [f.order_mib for f in found]),
        ("opened again by a loader process", [f.reopen_s for f in found], None),
    ):
        rows.append([name, f"{median(seconds):.2f}", f"{median(mib):.0f}" if mib else ""])
    print("\n".join(aligned(rows, rule=True)))
    print(f"{found[0].pickle_bytes / 1e3:.0f} kB go to each loader process; medians of {rounds}\n", flush=True)


def _print_waiting(scratch: Path, options: argparse.Namespace) -> None:
    from spe_dist.benchmark.data.distant import Demand, Line, Waiting, measure_waiting, served
    from spe_dist.benchmark.data.made_up import write_shards
    from spe_dist.benchmark.pretraining.sentences import BLOCK_SENTENCES
    from spe_dist.utils.tables import aligned

    folder = scratch / "shards"
    folder.mkdir()
    blocks = max(1, options.sentences // BLOCK_SENTENCES)
    write_shards(folder, shards=max(1, blocks // 32), blocks=min(32, blocks))
    sentences = max(1, blocks // 32) * min(32, blocks) * BLOCK_SENTENCES
    demand = Demand(
        options.ranks, options.batch, options.rate, sentences // options.batch, only_reads=options.only_read
    )
    found: dict[str, Waiting] = {"folder": measure_waiting(str(folder), scratch, demand)}
    for name, has_ranges in (("server, by range", True), ("server, whole shards", False)):
        line = Line(options.latency_ms / 1e3, options.mb_per_s * 1e6, has_ranges)
        with served(folder, line) as url:
            asked = Demand(
                demand.ranks,
                demand.global_batch,
                demand.sentences_per_s,
                demand.steps,
                not has_ranges,
                options.only_read,
            )
            found[name] = measure_waiting(url, scratch / name.replace(" ", "_"), asked)
    header = ["source", "sentences/s", "first step, s", "waited after it", "longest wait, s", "bytes read / used"]
    rows = [header]
    for name, waiting in found.items():
        ratio = f"{waiting.read_bytes / waiting.used_bytes:.3f}" if waiting.read_bytes else ""
        rows.append(
            [
                name,
                f"{waiting.sentences_per_s:,.0f}",
                f"{waiting.first_step_s:.1f}",
                f"{waiting.waited_share:.1%}",
                f"{waiting.longest_s:.2f}",
                ratio,
            ]
        )
    print("\n".join(aligned(rows, rule=True)))
    print(
        f"{options.ranks} ranks take {options.rate:,.0f} sentences/s, {sentences:,} in all; server: "
        f"{options.latency_ms:g} ms, {options.mb_per_s:g} MB/s\n",
        flush=True,
    )


def _print_mixing() -> None:
    import numpy as np

    from spe_dist.benchmark.data.mixing import share_met_again
    from spe_dist.data.batches.order import Order
    from spe_dist.utils.tables import aligned

    sizes, shards = np.full(2_000, 1_000), np.full(20, 100)
    rows = [["order of 2,000,000 sentences, batches of 256", "pairs of a batch that meet again in the next epoch"]]
    for name, streams, shard_blocks in (
        ("blocks, 256 streams", 256, None),
        ("shards, 8 streams", 8, shards),
        ("shards, 1 stream", 1, shards),
    ):
        order = Order(sizes, 0, streams, 256, shard_blocks=shard_blocks)
        rows.append([name, f"{share_met_again(order):.3%}"])
    print("\n".join(aligned(rows, rule=True)))
