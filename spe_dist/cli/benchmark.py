"""Measure parts of the system on this machine.

spe benchmark loader --shards DIR
spe benchmark extraction --train FILE --start NAME
spe benchmark prediction --model OUTPUT/model --corpus FILE --neighbours 0,1,4
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections.abc import Sequence

from spe_dist.cli.exits import run_command
from spe_dist.cli.options.numbers import number, whole_number
from spe_dist.cli.options.parser import Parser, choose_command, help_on_commands
from spe_dist.config.pretraining import CorruptionConfig
from spe_dist.errors import ConfigError

COMMANDS = {
    "loader": "sentences a second from shards to packed micro-batches, on one core",
    "extraction": "sentences a second of fine-tuning and of prediction",
    "prediction": "sentences a second of prediction on a CPU beside other busy processes",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status is explained in `spe_dist.cli.exits`."""
    return run_command(lambda: _run(sys.argv[1:] if argv is None else argv))


def _run(argv: Sequence[str]) -> None:
    help_text = help_on_commands("spe benchmark", __doc__ or "", COMMANDS)
    name = choose_command("spe benchmark", argv, list(COMMANDS), help_text)
    if name == "loader":
        run_loader(loader_parser().parse(argv[1:]))
    elif name == "extraction":
        run_extraction(extraction_parser().parse(argv[1:]))
    elif name == "prediction":
        run_prediction(prediction_parser().parse(argv[1:]))


def loader_parser() -> Parser:
    """The options of `spe benchmark loader`."""
    doc = "Reads shards, corrupts and packs in this process alone, on one core."
    parser = Parser("spe benchmark loader", "--shards DIR [options]", doc)
    add = parser.add_argument
    add("--shards", required=True, metavar="DIR", help="folder or URL of shards")
    add("--sentences", type=whole_number(1), default=200_000, metavar="N", help="sentences to time")
    add("--global_batch", type=whole_number(1), default=256, metavar="N", help="sentences a step")
    add("--micro_batch", type=whole_number(1), default=256, metavar="N", help="sentences a micro-batch")
    add("--view_masks", choices=("each", "one"), default="one", help="as in pre-training")
    add("--permutations", type=whole_number(1, 6), default=1, metavar="N", help="n_p of the paper")
    add("--seed", type=whole_number(), default=0, metavar="N", help="of order and corruption")
    return parser


def extraction_parser() -> Parser:
    """The options of `spe benchmark extraction`."""
    doc = (
        "Trains the joint model on a corpus for some steps, then predicts the corpus from its file.\n\n"
        "Both are compared with the rate of a plain matrix product that is measured in between."
    )
    parser = Parser("spe benchmark extraction", "--train FILE [options]", doc)
    add = parser.add_argument
    add("--train", required=True, metavar="FILE", help="corpus in any format that fine-tuning reads")
    add("--start", metavar="NAME|FOLDER", help="what fine-tuning starts from [random weights]")
    add("--tokenizer", metavar="NAME|FOLDER", help="tokenizer, where the start has none")
    add("--batch_sentences", type=whole_number(1), default=32, metavar="N", help="sentences a step")
    add("--batch_pieces", type=whole_number(1), default=4096, metavar="N", help="pieces a prediction")
    add("--steps", type=whole_number(1), default=60, metavar="N", help="steps to time")
    add("--seconds", type=number(0.1), default=10.0, metavar="X", help="prediction to time")
    add("--gold", type=number(0, 1), default=1.0, metavar="X", help="P(gold) of scheduled sampling")
    add(
        "--bfloat16",
        action=argparse.BooleanOptionalAction,
        help="matrix products in bfloat16: mixed precision in training [where the device is fast at it]",
    )
    add("--threads", type=whole_number(), metavar="N", help="threads of torch [as fine-tuning has]")
    add("--cpu", action="store_true", help="the CPU even where there is a GPU")
    add("--neighbours", type=whole_number(), default=0, metavar="N", help="processes that keep a core busy meanwhile")
    return parser


def prediction_parser() -> Parser:
    """The options of `spe benchmark prediction`."""
    doc = (
        "Predicts sentences of a corpus on the CPU, alone and beside processes that keep a core busy each.\n\n"
        "Compares several batches at a time, one thread each, as `spe predict` works, with one batch that all threads "
        "share. The ways take turns, so that they compare on a machine that does other work too."
    )
    parser = Parser("spe benchmark prediction", "--model OUTPUT/model --corpus FILE [options]", doc)
    add = parser.add_argument
    add("--model", required=True, metavar="FOLDER", help="fine-tuned folder")
    add("--corpus", required=True, metavar="FILE", help="corpus in any format that fine-tuning reads")
    add("--sentences", type=whole_number(1), default=256, metavar="N", help="first sentences of the corpus, predicted")
    add("--neighbours", type=_counts, default=[0, 1, 4], metavar="N,N,..", help="numbers of busy processes [0,1,4]")
    add("--repeats", type=whole_number(1), default=3, metavar="N", help="measurements of each way; medians count")
    add("--threads", type=whole_number(1), metavar="N", help="threads of torch [as many as cores]")
    add("--bfloat16", action=argparse.BooleanOptionalAction, help="matrix products in bfloat16 [where that is fast]")
    return parser


def _counts(text: str) -> list[int]:
    return sorted({whole_number()(part) for part in text.split(",")})


def run_prediction(options: argparse.Namespace) -> None:
    """Print medians of sentences/s for each way and number of neighbours, and the machine's load."""
    from spe_dist.benchmark.prediction import Work, measure, table, ways
    from spe_dist.extraction.joint.folder import is_extractor
    from spe_dist.utils.parallel import available_processes

    if not is_extractor(options.model):
        raise ConfigError(f"--model {options.model} is no fine-tuned folder; give OUTPUT/model of spe finetune")
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


def run_loader(options: argparse.Namespace) -> None:
    """Print sentences/s over all steps, the first (which fills the block cache) included."""
    import torch

    from spe_dist.data.batches.loader import step_loader
    from spe_dist.data.shards.store import ShardStore

    torch.set_num_threads(1)
    store = ShardStore.open(options.shards, "train")
    steps = max(1, options.sentences // options.global_batch)
    batches = step_loader(
        store,
        CorruptionConfig(view_masks=options.view_masks, permutations=options.permutations),
        global_batch=options.global_batch,
        micro_batch=options.micro_batch,
        rank=0,
        ranks=1,
        seed=options.seed,
        streams=0,
        start_step=0,
        end_step=steps,
    )
    tokens = 0
    began, cpu_began = time.perf_counter(), time.process_time()
    first_s = 0.0
    for batch in batches:
        tokens += sum(micro_batch.n_tokens for micro_batch in batch.micro_batches)
        first_s = first_s or time.perf_counter() - began
    wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    sentences = steps * options.global_batch
    shards = store.manifest.shards("train")
    pieces = sum(shard.pieces for shard in shards) / store.n_sentences
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"sentences        {sentences:,} in {steps:,} steps ({sentences / store.n_sentences:.2f} epochs)")
    print(f"pieces           {pieces:.1f} a sentence, {tokens / sentences:.1f} tokens a sentence in its views")
    print(f"first step       {first_s * 1000:.0f} ms")
    print(f"wall time        {wall_s:.1f} s = {sentences / wall_s:,.0f} sentences/s")
    print(f"CPU time         {cpu_s:.1f} s = {sentences / cpu_s:,.0f} sentences a CPU second")
    print(f"peak memory      {peak_mib:,.0f} MiB")


def run_extraction(options: argparse.Namespace) -> None:
    """Print rates, the share of the encoder, and the share of the machine's matrix products."""
    if options.cpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
    from spe_dist.distributed.context import start_ranks, stop_ranks
    from spe_dist.distributed.launch import detect

    context = start_ranks(detect(), timeout_s=1800.0)
    import torch

    from spe_dist.benchmark.extraction import Setup, Timing, measure_prediction, measure_training
    from spe_dist.benchmark.prediction import busy_neighbours
    from spe_dist.extraction.predicting.device import fast_bfloat16

    if options.threads:
        torch.set_num_threads(options.threads)
    setup = Setup.open(options.train, options.start, options.tokenizer, context)
    n_sentences = setup.corpus.n_sentences
    bfloat16 = fast_bfloat16(context.device) if options.bfloat16 is None else options.bfloat16
    dtype = "bfloat16" if bfloat16 else "float32"
    print(f"products         in {dtype} on {context.device}, {torch.get_num_threads()} threads")

    def show(name: str, timing: Timing) -> None:
        per_second = timing.sentences / timing.seconds
        own = timing.seconds - timing.encoder_s - timing.heads_s
        print(f"{name:16} {per_second:,.1f} sentences/s, {timing.pieces / timing.seconds:,.0f} pieces/s")
        print(f"  all sentences  {n_sentences / per_second:.1f} s for {n_sentences:,}")
        print(
            f"  time           encoder {timing.encoder_s / timing.seconds:.1%}, heads and data "
            f"{timing.heads_s / timing.seconds:.1%}, update {own / timing.seconds:.1%}"
        )
        print(
            f"  products       {timing.flops / timing.seconds / 1e9:,.1f} GFLOP/s, {timing.product_share:.1%} of the "
            f"{timing.product_rate / 1e9:,.1f} of a plain product"
        )

    with busy_neighbours(options.neighbours):
        show("training", measure_training(setup, options.batch_sentences, options.steps, options.gold, bfloat16))
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"  peak memory    {peak_mib:,.0f} MiB")
        prediction = measure_prediction(setup, options.batch_pieces, bfloat16, options.seconds)
    show("prediction", prediction)
    found = (prediction.entities / prediction.sentences, prediction.relations / prediction.sentences)
    print(f"  found          {found[0]:.2f} entities and {found[1]:.2f} relations a sentence")
    stop_ranks()
