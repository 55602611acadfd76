"""The options of `spe benchmark checkpoint`, and what it prints."""

from __future__ import annotations

import argparse
import statistics

from spe_dist.benchmark.pretraining.work import SIZES, Work
from spe_dist.cli.benchmark.options import set_option, settings
from spe_dist.cli.options.extras import TO_TRAIN, require
from spe_dist.cli.options.numbers import whole_number
from spe_dist.cli.options.parser import Parser


def parser() -> Parser:
    """The options of `spe benchmark checkpoint`."""
    doc = (
        "Saves and resumes a pre-training, checksums and syncing to the disk included, in turn with DeepSpeed's own "
        "files beside whole masters, averages and queues from rank 0. Medians over the rounds; the files lie in the "
        "system's cache when they are read."
    )
    command = Parser("spe benchmark checkpoint", "[options]", doc)
    add = command.add_argument
    add("--size", choices=tuple(SIZES), default="6x384", metavar="NAME", help=f"encoder: {', '.join(SIZES)}")
    add("--ranks", type=whole_number(1), default=2, metavar="N", help="processes of this machine")
    add("--stage", type=whole_number(0, 3), default=2, metavar="N", help="of ZeRO")
    add("--precision", metavar="NAME", help="auto, float16, bfloat16, mixed or float32 [auto, as in pre-training]")
    add("--keys", type=whole_number(1), default=65_536, metavar="N", help="keys in each queue")
    set_option(command)
    add("--rounds", type=whole_number(1), default=3, metavar="N", help="checkpoints of each kind")
    add("--fragments_only", action="store_true", help="without DeepSpeed's, which need the whole model in rank 0")
    add("--folder", default=".", metavar="DIR", help="on the disk that is measured")
    return command


def run(options: argparse.Namespace) -> None:
    """Measure, then print a table."""
    require(*TO_TRAIN)
    from spe_dist.benchmark.machine import Start, machine_line
    from spe_dist.benchmark.pretraining.processes import Entry, measure_checkpoints_of
    from spe_dist.utils.tables import aligned

    given = {
        "global_batch_sentences": 4 * options.ranks,
        "queue_keys": options.keys,
        **({"precision": options.precision} if options.precision else {}),
        **settings(options.set),
    }
    start = Start.now()
    work = Work(options.size, given, options.stage)
    entry = Entry(options.ranks)
    facts, times = measure_checkpoints_of(work, entry, options.folder, options.rounds, options.fragments_only)
    print(machine_line(start))
    print(f"{facts.title}, {facts.parameters:,} parameters, {options.keys:,} keys in each queue")
    rows = [("checkpoint", "save, s", "resume, s", "MB")]
    for kind in dict.fromkeys(found.kind for found in times):
        mine = [found for found in times if found.kind == kind]
        save, resume = (statistics.median(getattr(found, name) for found in mine) for name in ("save_s", "resume_s"))
        rows.append((kind, f"{save:.2f}", f"{resume:.2f}", f"{mine[0].bytes / 1e6:,.0f}"))
    print("\n".join(aligned(rows, "<>")))
