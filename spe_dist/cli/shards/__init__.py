"""Make shards of raw text, compare them with their manifest, or show a sentence as training sees it.

spe shards make --input wiki/*.txt.xz books/ --output SHARDS --tokenizer bert-base-cased
spe shards verify SHARDS
spe shards show SHARDS --sentence 12345
spe shards index OLD_SHARDS
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spe_dist.cli.exits import run_command
from spe_dist.cli.options.extras import TO_DIVIDE_SHARDS, TO_MAKE_SHARDS, require
from spe_dist.cli.options.parser import choose_command, help_on_commands
from spe_dist.cli.shards.parsers import index_parser, make_parser, show_parser, verify_parser
from spe_dist.config.pretraining import CorruptionConfig
from spe_dist.errors import ConfigError, DataError
from spe_dist.utils.wording import how_many, shown_url

if TYPE_CHECKING:
    from spe_dist.data.shards.manifest import Manifest
    from spe_dist.data.shards.store import ShardStore

SLURM_OPTIONS = ("slurm_time", "slurm_partition", "slurm_memory_gib", "slurm_sbatch", "slurm_wait")
COMMANDS = {
    "make": "make shards of raw text",
    "verify": "compare all shards with their manifest",
    "show": "show a sentence by its number",
    "index": "write the index of shards that an earlier version made",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status is explained in `spe_dist.cli.exits`."""
    given = list(sys.argv[1:] if argv is None else argv)
    makes = given[:1] == ["make"]
    interrupted = "interrupted; the same command continues" if makes else "interrupted"
    return run_command(lambda: _run(given), interrupted=interrupted, lasting=makes)


def _run(argv: Sequence[str]) -> int:
    name = choose_command("spe shards", argv, list(COMMANDS), help_on_commands("spe shards", __doc__ or "", COMMANDS))
    if name == "make":
        return make(make_parser(make.__doc__).parse(argv[1:]))
    if name == "verify":
        return verify(verify_parser(verify.__doc__).parse(argv[1:]))
    if name == "index":
        return index(index_parser(index.__doc__).parse(argv[1:]))
    return show(show_parser(show.__doc__).parse(argv[1:])) if name else 0


def make(options: argparse.Namespace) -> int:
    """Make shards of raw text: words, pieces, blocks in WebDataset tars, and a manifest.

    Input is text, JSON, CSV, Parquet or Arrow, plain, .gz, .xz or .zst. Sentences are shuffled over the whole text, and
    0.5% are held out. An interrupted run continues when the command is repeated. With --executor slurm the work is
    divided over a cluster; the shards are the same, byte for byte.
    """
    require(*TO_MAKE_SHARDS)
    from spe_dist.data.text.remote import local_inputs

    settings = vars(options).copy()
    inputs, output, executor = settings.pop("input"), settings.pop("output"), settings.pop("executor")
    cache_dir, fetch_timeout_s = settings.pop("cache_dir"), settings.pop("fetch_timeout_s")
    inputs = local_inputs(inputs, cache_dir, fetch_timeout_s, lambda line: print(line, flush=True)).names
    for_slurm = {name.removeprefix("slurm_"): settings.pop(name) for name in SLURM_OPTIONS}
    if executor is None:
        _refuse_without_executor({"tasks": settings.pop("tasks"), **for_slurm})
        from spe_dist.data.build.make import make_shards

        manifest: Manifest | None = make_shards(inputs, output, **settings)
    else:
        require(*TO_DIVIDE_SHARDS)
        from spe_dist.data.build.executors import SlurmOptions, make_shards_divided

        given = {name: value for name, value in for_slurm.items() if value}
        if given and executor != "slurm":
            raise ConfigError(f"--slurm_{next(iter(given))} is for --executor slurm; leave it out")
        given["sbatch"] = dict(given.get("sbatch", ()))
        manifest = make_shards_divided(inputs, output, executor=executor, slurm=SlurmOptions(**given), **settings)
    if manifest is not None and not options.quiet:
        start = f" --encoder {shlex.quote(options.tokenizer)}" if _may_be_encoder(options.tokenizer) else ""
        print(f"next: spe pretrain --shards {shlex.quote(str(output))}{start} --output RUN")
    return 0


def _refuse_without_executor(options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if value:
            option = name if name == "tasks" else f"slurm_{name}"
            raise ConfigError(
                f"--{option} is for a build that is divided; give --executor slurm with it, or leave it out"
            )


def _may_be_encoder(tokenizer: str | None) -> bool:
    """Whether the tokenizer's place has an encoder too: a name may, a folder with a config.json, no vocab.txt."""
    if tokenizer is None:
        return False
    path = Path(tokenizer)
    return (path / "config.json").is_file() if path.exists() else True


def verify(options: argparse.Namespace) -> int:
    """Compare all shards with their manifest; exit status 1 where something is wrong."""
    store = _open_store(options)
    report = store.verify()
    for split, shards in store.manifest.splits.items():
        sentences, blocks = store.manifest.n_sentences(split), sum(len(shard.blocks) for shard in shards)
        print(
            f"{split}: {how_many(len(shards), 'shard')}, {how_many(blocks, 'block')}, "
            f"{how_many(sentences, 'sentence')} in the manifest"
        )
    print(report)
    return 0 if report.ok else 1


def index(options: argparse.Namespace) -> int:
    """Write the index of blocks beside shards that an earlier version made, so that they open at once and can be read
    block by block behind a URL. The shards stay as they are; runs over them resume.
    """
    from spe_dist.data.shards.upgrade import write_index

    manifest = write_index(Path(options.shards).expanduser(), lambda name: print(name, flush=True))
    blocks = sum(len(shard.blocks) for shards in manifest.splits.values() for shard in shards)
    print(f"index of {how_many(blocks, 'block')} written")
    return 0


def show(options: argparse.Namespace) -> int:
    """Show a sentence by its number, with its spans, permutation, targets and both views."""
    from spe_dist.data.batches.inspect import describe_sentence

    stores = [_open_store(options, split) for split in ("train", "held_out")]
    number = options.sentence
    holding = [store for store in stores if 0 <= number - store.first_sentence_id < store.n_sentences]
    if not holding:
        total = sum(store.n_sentences for store in stores)
        raise DataError(
            f"--sentence {number} does not exist in {shown_url(options.shards)}; its numbers are 0 to {total - 1}"
        )
    config = CorruptionConfig(view_masks=options.view_masks, permutations=options.permutations)
    print(describe_sentence(holding[0], number, config, seed=options.seed, epoch=options.epoch))
    return 0


def _open_store(options: argparse.Namespace, split: str = "train") -> ShardStore:
    from spe_dist.data.shards.store import ShardStore

    return ShardStore.open(options.shards, split, options.cache_dir, options.cache_gib, options.fetch_timeout_s)
