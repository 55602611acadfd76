"""The options of `spe benchmark scaling`, and what it prints."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from spe_dist.benchmark.pretraining.work import SIZES, Work
from spe_dist.benchmark.scaling.model import Cluster
from spe_dist.benchmark.scaling.traffic import WIDTHS
from spe_dist.cli.benchmark.options import set_option, settings, whole_numbers
from spe_dist.cli.options.extras import TO_TRAIN, require
from spe_dist.cli.options.numbers import number, whole_number
from spe_dist.cli.options.parser import Parser
from spe_dist.config.shared import check_batch_divides

RANKS = "1,2,4,8,16,32,64,128,256,512,1024"
HELP = {  # of the assumptions, by their names
    "product_tflops": "rate of a plain product on one GPU",
    "share": "of that rate which the model's products reach",
    "memory_tb_s": "bandwidth of a GPU's memory, TB/s",
    "node_ranks": "GPUs of a machine",
    "node_gb_s": "what a GPU sends inside its machine, GB/s each way",
    "network_gb_s": "what a GPU sends over the network, GB/s each way",
    "node_us": "latency of a hop inside a machine, microseconds",
    "network_us": "latency of a hop over the network, microseconds",
    "control_us": "latency of a hop between CPUs in a ring, microseconds",
    "control_round_us": "latency of a round in which CPUs exchange in pairs, microseconds",
    "loader_rate": "sentences/s of a loader process",
    "loader_workers": "loader processes a rank",
}


def parser() -> Parser:
    """The options of `spe benchmark scaling`."""
    doc = (
        "Calculates what a step of pre-training costs on many GPUs: time, memory, bytes over the network, and what to "
        "set where the GPUs wait for more than a tenth of it.\n\n"
        "Bytes follow from formulas that are checked against what ranks really send; times follow from them and from "
        "the assumptions below, none of which is measured here. Stage 0 on several ranks is for comparison: the "
        "program takes it on one rank alone."
    )
    command = Parser("spe benchmark scaling", "[options]", doc)
    add = command.add_argument
    add("--size", choices=tuple(SIZES), default="base", metavar="NAME", help=f"encoder: {', '.join(SIZES)}")
    counts = whole_numbers(1)
    add("--ranks", type=counts, default=counts(RANKS), metavar="N,N,..", help=f"GPUs [{RANKS}]")
    add("--stages", type=whole_numbers(0, 3), default=[0, 1, 2, 3], metavar="N,N,..", help="of ZeRO [0,1,2,3]")
    add("--rank_sentences", type=whole_number(1), default=256, metavar="N", help="sentences of each GPU in a step")
    add("--global_batch", type=whole_number(1), metavar="N", help="sentences of all GPUs in a step, instead")
    add("--accumulation", type=whole_number(1), default=1, metavar="N", help="micro-batches of a step")
    add("--precision", choices=tuple(WIDTHS), default="float16", metavar="NAME", help=", ".join(WIDTHS))
    set_option(command)
    add("--json", metavar="FILE", help="write all figures there, too")
    assumed = command.add_argument_group("assumptions")
    for field in dataclasses.fields(Cluster):
        whole = isinstance(field.default, int)
        kind = whole_number(1) if whole else number(1e-9)
        assumed.add_argument(
            f"--{field.name}", type=kind, default=field.default, metavar="N" if whole else "X", help=HELP[field.name]
        )
    return command


def run(options: argparse.Namespace) -> None:
    """Calculate, then print tables."""
    require(*TO_TRAIN)
    from spe_dist.benchmark.scaling.network import Network
    from spe_dist.benchmark.scaling.report import as_json, rows, tables

    cluster = Cluster(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Cluster)})
    work = Work(options.size, {"view_masks": "each", **settings(options.set)})
    work.config()
    network = Network.of(work, options.precision)
    plans = []
    for stage in options.stages:
        for ranks in options.ranks:
            if options.global_batch and options.global_batch < ranks * options.accumulation:
                continue
            sentences = options.rank_sentences * ranks
            if options.global_batch:
                sentences = options.global_batch
                check_batch_divides("global_batch", sentences, ranks, options.accumulation)
            plans.append(network.plan(ranks, stage, sentences // ranks, options.accumulation))
    found = rows(plans, cluster, network.sentence_flops, network.memory)
    print(
        f"{work.size}, {network.parameters:,} parameters, {network.key_parameters:,} in the key encoder, "
        f"{options.precision}; {network.sentence_pieces:.1f} pieces a sentence in its views, "
        f"{network.sentence_flops / 1e9:.1f} GFLOP\n"
    )
    print("\n".join(tables(found, cluster)))
    if options.json:
        known = {k: v for k, v in vars(network).items() if k != "config"}
        Path(options.json).write_text(json.dumps(as_json(found, cluster, known), indent=1) + "\n", encoding="utf-8")
