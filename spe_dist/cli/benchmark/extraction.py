"""The options of `spe benchmark extraction`, and what it prints."""

from __future__ import annotations

import argparse
import os

from spe_dist.cli.options.numbers import number, whole_number
from spe_dist.cli.options.parser import Parser
from spe_dist.utils.memory import peak_resident_bytes


def parser() -> Parser:
    """The options of `spe benchmark extraction`."""
    doc = (
        "Trains the joint model on a corpus for some steps, then predicts the corpus from its file.\n\n"
        "Both are compared with the rate of a plain matrix product that is measured in between."
    )
    command = Parser("spe benchmark extraction", "--train FILE [options]", doc)
    add = command.add_argument
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
    return command


def run(options: argparse.Namespace) -> None:
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
        print(f"  peak memory    {peak_resident_bytes() / 2**20:,.0f} MiB")
        prediction = measure_prediction(setup, options.batch_pieces, bfloat16, options.seconds)
    show("prediction", prediction)
    found = (prediction.entities / prediction.sentences, prediction.relations / prediction.sentences)
    print(f"  found          {found[0]:.2f} entities and {found[1]:.2f} relations a sentence")
    stop_ranks()
