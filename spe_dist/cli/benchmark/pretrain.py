"""The options of `spe benchmark pretrain`, and what it prints."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from spe_dist.benchmark.pretraining.work import SIZES, VIEW_PIECES, VOCABULARY, Work
from spe_dist.cli.benchmark.options import set_option, settings, whole_numbers
from spe_dist.cli.options.extras import TO_TRAIN, require
from spe_dist.cli.options.numbers import number, whole_number
from spe_dist.cli.options.parser import Parser
from spe_dist.config.shared import check_batch_divides


def parser() -> Parser:
    """The options of `spe benchmark pretrain`."""
    doc = (
        "Trains steps of `spe pretrain` with full queues, and the same steps in a plain form, in turn.\n\n"
        "Sentences are made up, of some 28 word pieces, unless --shards has real ones. The plain form is transformers' "
        "BertModel on padded batches with loops over spans; its losses are the same. A plain matrix product is "
        "measured in between, so that what else the machine does weighs on all alike; ratios are medians over the "
        "rounds, with the lowest and the highest."
    )
    command = Parser("spe benchmark pretrain", "[options]", doc)
    add = command.add_argument
    add("--size", choices=tuple(SIZES), default="6x384", metavar="NAME", help=f"encoder: {', '.join(SIZES)}")
    add(
        "--ranks",
        type=whole_numbers(1),
        default=[1],
        metavar="N,N,..",
        help="processes of this machine that share a step [1]",
    )
    add("--batch", type=whole_number(1), default=32, metavar="N", help="sentences a step over all ranks")
    add("--precision", metavar="NAME", help="auto, float16, bfloat16, mixed or float32 [auto, as in pre-training]")
    add("--stage", type=whole_number(0, 3), metavar="N", help="of ZeRO [as pre-training takes by itself]")
    add("--keys", type=whole_number(1), default=65_536, metavar="N", help="keys in each queue")
    add("--view_masks", choices=("each", "one"), default="each", help="[MASK] for each hidden piece, or one a span")
    set_option(command)
    add("--shards", metavar="DIR", help="folder or URL of shards with real sentences")
    add("--rounds", type=whole_number(1), default=5, metavar="N", help="blocks of steps of each")
    add("--seconds", type=number(0), default=5.0, metavar="X", help="of a block, about; at least one step")
    add("--plain", action=argparse.BooleanOptionalAction, default=True, help="with the plain form [yes]")
    add("--compiled", action="store_true", help="with one rank more, of compiled layers and heads")
    add("--sharded", action="store_true", help="with the same ranks once more, of sharded queues")
    add("--json", metavar="FILE", help="write all figures there, too")
    add("--cpu", action="store_true", help="the CPU even where there is a GPU")
    command.less_used(
        add(
            "--vocabulary", type=whole_number(10), default=VOCABULARY, metavar="N", help="pieces, of made-up sentences"
        ),
        add("--pieces", type=number(6), default=VIEW_PIECES, metavar="X", help="of a made-up sentence, in the mean"),
    )
    return command


def run(options: argparse.Namespace) -> None:
    """Measure, then print tables."""
    require(*TO_TRAIN)
    from spe_dist.benchmark.machine import Start, machine_line
    from spe_dist.benchmark.pretraining.processes import Entry, measure
    from spe_dist.benchmark.pretraining.report import as_json, tables

    if options.cpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
    given = {
        "global_batch_sentences": options.batch,
        "queue_keys": options.keys,
        "view_masks": options.view_masks,
        **({"precision": options.precision} if options.precision else {}),
        **settings(options.set),
    }
    work = Work(options.size, given, options.stage, options.shards, options.vocabulary, options.pieces)
    train = work.config().train
    for ranks in options.ranks:
        check_batch_divides("global_batch_sentences", options.batch, ranks, train.micro_batch_sentences or 1)
    entries = [Entry(ranks) for ranks in options.ranks]
    entries += [Entry(ranks, sharded=True) for ranks in options.ranks if options.sharded and ranks > 1]
    entries += [Entry(1, compiled=True)] * options.compiled + [Entry(1, plain=True)] * options.plain
    start = Start.now()
    measured = measure(work, entries, options.rounds, options.seconds, lambda line: print(line, file=sys.stderr))
    machine = machine_line(start)
    print("\n".join([machine, *tables(work, measured)]))
    if options.json:
        content = json.dumps(as_json(work, measured, machine, sys.argv[1:]), indent=1)
        Path(options.json).write_text(content + "\n", encoding="utf-8")
