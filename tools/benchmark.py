#!/usr/bin/env python3
"""Measure parts of the system on this machine."""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from spe_dist.config import CorruptionConfig
from spe_dist.errors import SpeError


def add_loader(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "loader",
        help="sentences a second from shards to packed micro-batches, on one core",
        description="Reads shards, corrupts and packs in this process alone, on one core.",
    )
    parser.add_argument("--shards", required=True, help="folder or URL of shards")
    parser.add_argument("--sentences", type=int, default=200_000, help="sentences to time (default: %(default)s)")
    parser.add_argument("--global_batch", type=int, default=256, help="sentences a step (default: %(default)s)")
    parser.add_argument("--micro_batch", type=int, default=256, help="sentences a micro-batch (default: %(default)s)")
    parser.add_argument("--view_masks", choices=("each", "one"), default="one", help="default: %(default)s")
    parser.add_argument("--permutations", type=int, default=1, help="n_p (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(run=run_loader)


def run_loader(options: argparse.Namespace) -> None:
    """Print sentences/s over all steps, the first (which fills the block cache) included."""
    import torch

    from spe_dist.data.store import ShardStore
    from spe_dist.data.stream import step_loader

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


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="WHAT")
    add_loader(commands)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except SpeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
