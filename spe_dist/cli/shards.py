"""Look into shards: compare them with their manifest, or show a sentence as training sees it.

spe shards verify DIR
spe shards show DIR --sentence 12345
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from spe_dist.cli import make_shards
from spe_dist.cli.exits import run_command
from spe_dist.config.pretraining import CorruptionConfig
from spe_dist.data.shards.store import ShardStore
from spe_dist.errors import DataError


def verify(options: argparse.Namespace) -> int:
    """Read everything and print what was checked; exit status 1 where something is wrong."""
    store = ShardStore.open(options.shards, cache_dir=options.cache_dir)
    report = store.verify()
    for split, shards in store.manifest.splits.items():
        sentences, blocks = store.manifest.n_sentences(split), sum(len(shard.blocks) for shard in shards)
        print(f"{split}: {len(shards):,} shards, {blocks:,} blocks, {sentences:,} sentences in the manifest")
    print(report)
    return 0 if report.ok else 1


def show(options: argparse.Namespace) -> int:
    """Print one sentence with its spans, permutation, targets and both views."""
    from spe_dist.data.batches.inspect import describe_sentence

    stores = [ShardStore.open(options.shards, split, options.cache_dir) for split in ("train", "held_out")]
    number = options.sentence
    holding = [store for store in stores if 0 <= number - store.first_sentence_id < store.n_sentences]
    if not holding:
        total = sum(store.n_sentences for store in stores)
        raise DataError(f"--sentence {number} does not exist in {options.shards}; its ids are 0 to {total - 1}")
    config = CorruptionConfig(view_masks=options.view_masks, permutations=options.permutations)
    print(describe_sentence(holding[0], number, config, seed=options.seed, epoch=options.epoch))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["make"]:
        return make_shards.main(given[1:])
    options = _parser().parse_args(given)
    return run_command(lambda: options.run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("make", help="make shards of raw text", add_help=False)
    verifying = commands.add_parser("verify", help="compare all shards with their manifest", description=verify.__doc__)
    verifying.set_defaults(run=verify)
    showing = commands.add_parser("show", help="show a sentence by its id", description=show.__doc__)
    showing.set_defaults(run=show)
    for command in (verifying, showing):
        command.add_argument("shards", metavar="DIR", help="folder or URL of shards")
        command.add_argument("--cache_dir", help="where shards of a URL are kept (default: the user's cache folder)")
    defaults = CorruptionConfig()
    add = showing.add_argument
    add("--sentence", type=int, required=True, metavar="ID", help="training sentences first, then the held-out ones")
    add("--seed", type=int, default=0, help="seed of the run (default: %(default)s)")
    add("--epoch", type=int, default=0, help="epoch, from 0 (default: %(default)s)")
    add("--view_masks", choices=("each", "one"), default=defaults.view_masks, help="default: %(default)s")
    add("--permutations", type=int, default=defaults.permutations, help="n_p of the paper (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
