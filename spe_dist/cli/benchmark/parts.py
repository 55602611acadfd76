"""The options of `spe benchmark parts`, and what it prints."""

from __future__ import annotations

import argparse

from spe_dist.benchmark.pretraining.work import SIZES
from spe_dist.cli.benchmark.options import whole_numbers
from spe_dist.cli.options.extras import TO_TRAIN, require
from spe_dist.cli.options.numbers import whole_number
from spe_dist.cli.options.parser import Parser


def parser() -> Parser:
    """The options of `spe benchmark parts`."""
    doc = (
        "Compares parts of a pre-training step with their plain forms on the CPU, in turn: contrast in one pass over a "
        "full queue with a score for every key at once, the key encoder's average in a compiled kernel with single "
        "operations, the last layer for the tokens that are read with all, activation checkpointing with all kept, "
        "dropout seeded by slot with that of torch's generator. Ratios are medians over the rounds.\n\n"
        "Also prints what contrast's products in fewer bits change, and the memory that checkpointing spares."
    )
    command = Parser("spe benchmark parts", "[options]", doc)
    add = command.add_argument
    add("--queries", type=whole_numbers(1), default=[32, 256], metavar="N,N,..", help="of contrast [32,256]")
    add("--keys", type=whole_number(1), default=65_536, metavar="N", help="keys in the queue")
    add("--key_size", type=whole_number(1), default=300, metavar="N", help="width of queries and keys")
    add("--parameters", type=whole_number(1), default=23_000_000, metavar="N", help="of the average")
    add("--size", choices=tuple(SIZES), default="6x384", metavar="NAME", help=f"encoder: {', '.join(SIZES)}")
    add("--batch", type=whole_number(1), default=32, metavar="N", help="sentences for the encoder")
    add("--rounds", type=whole_number(1), default=7, metavar="N", help="measurements of each")
    add("--threads", type=whole_number(1), default=1, metavar="N", help="threads of torch")
    return command


def run(options: argparse.Namespace) -> None:
    """Measure, then print two tables."""
    require(*TO_TRAIN)
    import torch

    from spe_dist.benchmark import parts
    from spe_dist.benchmark.machine import Start, machine_line
    from spe_dist.utils.memory import tune_memory
    from spe_dist.utils.tables import aligned

    tune_memory()
    torch.set_num_threads(options.threads)
    start, rounds = Start.now(), options.rounds
    compared = {
        f"contrast, {count} queries, {options.keys:,} keys of {options.key_size}": parts.Contrast(
            count, options.keys, options.key_size
        ).compare(rounds)
        for count in options.queries
    }
    compared[f"average of {options.parameters:,}"] = parts.compare_average(options.parameters, rounds)
    last_layer, share = parts.compare_last_layer(options.size, options.batch, rounds)
    compared[f"last layer of {options.size} for {share:.0%} of the tokens, in query, keys and backward"] = last_layer
    recomputed, peak, plain_peak = parts.compare_recomputed(options.size, options.batch, rounds)
    compared[f"activation checkpointing of {options.size}, query, keys and backward"] = recomputed
    compared[f"dropout of {options.size} by slot, in query, keys and backward"] = parts.compare_dropout(
        options.size, options.batch, rounds
    )
    print("\n".join(aligned(parts.lines(compared), rule=True)))
    print(f"\n{machine_line(start)}; {options.threads} threads, {rounds} rounds")
    print(
        f"activation checkpointing: tensors of forward and backward take {peak / 2**20:,.1f} MiB at most, "
        f"{plain_peak / 2**20:,.1f} without"
    )
    rows = [["products of contrast", "unit length: loss, nats", "gradient", "raw: loss, nats", "gradient"]]
    errors = [parts.Contrast(options.queries[0], options.keys, 768, unit).rounding() for unit in (True, False)]
    for kind in parts.ROUNDED:
        cells = [f"{value:.1e}" for found in errors for value in (found[kind].loss, found[kind].gradient)]
        rows.append([kind, *cells])
    print("\n" + "\n".join(aligned(rows, rule=True)))
