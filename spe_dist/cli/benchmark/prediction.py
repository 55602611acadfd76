"""The options of `spe benchmark prediction`, and what it prints."""

from __future__ import annotations

import argparse
import os

from spe_dist.cli.options.numbers import whole_number
from spe_dist.cli.options.parser import Parser
from spe_dist.errors import ConfigError


def parser() -> Parser:
    """The options of `spe benchmark prediction`."""
    doc = (
        "Predicts sentences of a corpus on the CPU, alone and beside processes that keep a core busy each.\n\n"
        "Compares several batches at a time, one thread each, as `spe predict` works, with one batch that all threads "
        "share. The ways take turns, so that they compare on a machine that does other work too."
    )
    command = Parser("spe benchmark prediction", "--model OUTPUT/model --corpus FILE [options]", doc)
    add = command.add_argument
    add("--model", required=True, metavar="FOLDER", help="fine-tuned folder")
    add("--corpus", required=True, metavar="FILE", help="corpus in any format that fine-tuning reads")
    add("--sentences", type=whole_number(1), default=256, metavar="N", help="first sentences of the corpus, predicted")
    add("--neighbours", type=_counts, default=[0, 1, 4], metavar="N,N,..", help="numbers of busy processes [0,1,4]")
    add("--repeats", type=whole_number(1), default=3, metavar="N", help="measurements of each way; medians count")
    add("--threads", type=whole_number(1), metavar="N", help="threads of torch [as many as cores]")
    add("--bfloat16", action=argparse.BooleanOptionalAction, help="matrix products in bfloat16 [where that is fast]")
    return command


def _counts(text: str) -> list[int]:
    return sorted({whole_number()(part) for part in text.split(",")})


def run(options: argparse.Namespace) -> None:
    """Print medians of sentences/s for each way and number of neighbours, and the machine's load."""
    from spe_dist.benchmark.prediction import Work, measure, table, ways
    from spe_dist.extraction.joint.folder import is_extractor
    from spe_dist.utils.parallel import available_processes

    if not is_extractor(options.model):
        raise ConfigError(f"--model {options.model} is not a fine-tuned folder; give OUTPUT/model of spe finetune")
    threads = options.threads or available_processes()
    compared = ways(threads)
    before = os.getloadavg()[0]
    rates = measure(
        Work(options.model, options.corpus, options.sentences, options.bfloat16),
        compared,
        options.neighbours,
        options.repeats,
    )
    print("\n".join(table(rates, compared, options.neighbours[0])))
    print(
        f"{available_processes()} cores, load {before:.1f} before and {os.getloadavg()[0]:.1f} after; medians of "
        f"{options.repeats}; %: of the rate with {options.neighbours[0]} neighbours;"
        " unhindered: of the time in which no thread waited for a core"
    )
