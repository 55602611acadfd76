"""Make shards of raw text, compare them with their manifest, or show a sentence as training sees it.

spe shards make --input wiki/*.txt.xz books/ --output SHARDS --tokenizer bert-base-cased
spe shards verify SHARDS
spe shards show SHARDS --sentence 12345
spe shards index OLD_SHARDS
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from spe_dist.cli.exits import run_command
from spe_dist.cli.options.extras import TO_DIVIDE_SHARDS, TO_MAKE_SHARDS, require
from spe_dist.cli.options.fetching import add_fetching
from spe_dist.cli.options.languages import add_language
from spe_dist.cli.options.numbers import number, whole_number
from spe_dist.cli.options.parser import Parser, choose_command, help_on_commands
from spe_dist.config.pretraining import CorruptionConfig, DataConfig
from spe_dist.data.build.settings import BuildSettings, DropChoice
from spe_dist.data.text.formats.recognise import FormatChoice
from spe_dist.data.text.paragraphs import LinesChoice
from spe_dist.errors import ConfigError, DataError
from spe_dist.utils.wording import how_many

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
    interrupted = "interrupted"
    if given[:1] == ["make"]:
        interrupted = "interrupted; the same command continues"
    return run_command(lambda: _run(given), interrupted=interrupted)


def _run(argv: Sequence[str]) -> int:
    name = choose_command("spe shards", argv, list(COMMANDS), help_on_commands("spe shards", __doc__ or "", COMMANDS))
    if name == "make":
        return make(make_parser().parse(argv[1:]))
    if name == "verify":
        return verify(verify_parser().parse(argv[1:]))
    if name == "index":
        return index(index_parser().parse(argv[1:]))
    return show(show_parser().parse(argv[1:])) if name else 0


def make(options: argparse.Namespace) -> int:
    """Make shards of raw text: words, pieces, blocks in WebDataset tars, and a manifest.

    Input is text, JSON, CSV, Parquet or Arrow, plain, .gz, .xz or .zst. Sentences are shuffled over the whole corpus,
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
        start = f" --encoder {options.tokenizer}" if _may_be_encoder(options.tokenizer) else ""
        print(f"next: spe pretrain --shards {output}{start} --output RUN")
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
        raise DataError(f"--sentence {number} does not exist in {options.shards}; its numbers are 0 to {total - 1}")
    config = CorruptionConfig(view_masks=options.view_masks, permutations=options.permutations)
    print(describe_sentence(holding[0], number, config, seed=options.seed, epoch=options.epoch))
    return 0


def make_parser() -> Parser:
    """The options of `spe shards make`."""
    parser = Parser("spe shards make", "--input FILES --output DIR --tokenizer NAME [options]", make.__doc__)
    defaults = BuildSettings()
    add, rest = parser.add_argument, parser.less_used
    add("--input", nargs="+", required=True, metavar="FILES", help="text files, folders, globs or URLs")
    add("--output", required=True, metavar="DIR", help="folder for shards, tokenizer and manifest.json")
    add("--tokenizer", metavar="NAME|FOLDER|FILE", help="WordPiece tokenizer: a name, a folder or a vocab.txt")
    add(
        "--train_vocab",
        type=whole_number(1),
        metavar="N",
        help="or train a vocabulary of N pieces on the input",
    )
    add(
        "--do_lower_case",
        type=_boolean,
        metavar="true|false",
        help="lower-case the text [as the tokenizer says, or as its vocabulary is; a trained one: false]",
    )
    add(
        "--unit",
        choices=("auto", "sentences", "documents"),
        default=defaults.unit,
        help="one sentence a line, or documents that are split into sentences; auto looks whether lines of a sample "
        "hold several sentences or are wrapped",
    )
    add(
        "--lines",
        choices=get_args(LinesChoice),
        default=defaults.lines,
        help="whether a sentence of plain text may go on in the next line; auto looks whether a file's lines have a "
        "width",
    )
    add(
        "--words",
        choices=("auto", "spaces", "tokenizer"),
        default=defaults.words,
        help="words stand between spaces (tokenised text only), or are found by the tokenizer of the language; auto "
        "looks whether punctuation of a sample is attached to words",
    )
    add_language(add, defaults.language)
    rest(
        add(
            "--format",
            choices=get_args(FormatChoice),
            default=defaults.format,
            help="auto: by each file's content; text: as it is; csv: also TSV and the like; json: lines or a list",
        )
    )
    rest(
        add(
            "--text_field",
            default=defaults.text_field,
            metavar="NAME",
            help="field or column of the text; by its path in a record (body.paragraphs), in a table also by number",
        )
    )
    add(
        "--drop_duplicates",
        choices=get_args(DropChoice),
        default=defaults.drop_duplicates,
        help="sentences that stood before: dropped where they are equal word for word, also where case and spaces "
        "alone differ (near), or none; counted in any case",
    )
    rest(add("--seed", type=whole_number(), default=defaults.seed, metavar="N", help="seed of the shuffle"))
    add("--held_out", type=number(), default=defaults.held_out, metavar="X", help="share of sentences held out")
    add(
        "--max_pieces",
        type=whole_number(),
        default=defaults.max_pieces,
        metavar="N",
        help="longest sentence in pieces, [CLS] and [SEP] included; longer ones are skipped",
    )
    rest(
        add(
            "--block_sentences",
            type=whole_number(),
            default=defaults.block_sentences,
            metavar="N",
            help="sentences of a block, about",
        )
    )
    rest(
        add(
            "--shard_sentences",
            type=whole_number(),
            default=defaults.shard_sentences,
            metavar="N",
            help="sentences of a shard, about",
        )
    )
    add(
        "--processes",
        type=whole_number(1),
        metavar="N",
        help="worker processes [one a core; for small inputs one]",
    )
    rest(
        add(
            "--max_bad_share",
            type=number(0, 1),
            default=0.01,
            metavar="X",
            help="share of undecodable lines from which the build fails",
        ),
        *add_fetching(add, "texts"),
    )
    add("--overwrite", action="store_true", help="remove an earlier build of another request from DIR")
    rest(add("--quiet", action="store_true", help="print nothing but warnings and errors"))
    _add_executor(parser)
    return parser


def _add_executor(parser: Parser) -> None:
    """Options of a build that is divided over machines."""
    add, rest = parser.add_argument, parser.less_used
    add(
        "--executor",
        choices=("local", "slurm"),
        help="divide the work into tasks that datatrove runs: as job arrays of Slurm, or on this machine [not divided]",
    )
    rest(
        add(
            "--tasks",
            type=whole_number(1),
            metavar="N",
            help="tasks that the work is divided into [one for 64 MiB of the input, at most 1,000]",
        )
    )
    rest(add("--slurm_time", metavar="TIME", help="time limit of a task, as sbatch takes it [4:00:00]"))
    rest(add("--slurm_partition", metavar="NAME", help="partition of the tasks [the cluster's default]"))
    rest(add("--slurm_memory_gib", type=whole_number(1), metavar="N", help="memory of each process of a task [4]"))
    rest(
        add(
            "--slurm_sbatch",
            type=_sbatch_option,
            action="append",
            metavar="NAME=VALUE",
            help="a further option of sbatch by its long name, such as account=nlp; may be given several times",
        )
    )
    rest(add("--slurm_wait", action="store_true", help="return when the shards are made, not when jobs are submitted"))


def _sbatch_option(text: str) -> tuple[str, str]:
    name, _, value = text.removeprefix("--").partition("=")
    if not re.fullmatch(r"[a-z][a-z-]*", name) or "\n" in value:
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=VALUE, such as account=nlp")
    return name, value


def verify_parser() -> Parser:
    """The options of `spe shards verify`."""
    parser = Parser("spe shards verify", "DIR [options]", verify.__doc__)
    _add_shards(parser)
    return parser


def index_parser() -> Parser:
    """The options of `spe shards index`."""
    parser = Parser("spe shards index", "DIR", index.__doc__)
    parser.add_argument("shards", metavar="DIR", help="folder of shards")
    return parser


def show_parser() -> Parser:
    """The options of `spe shards show`."""
    parser = Parser("spe shards show", "DIR --sentence N [options]", show.__doc__)
    _add_shards(parser)
    defaults = CorruptionConfig()
    add = parser.add_argument
    add("--sentence", type=int, required=True, metavar="N", help="training sentences come first, then those held out")
    add("--seed", type=whole_number(), default=0, metavar="N", help="seed of the run")
    add("--epoch", type=whole_number(), default=0, metavar="N", help="epoch, from 0")
    add("--view_masks", choices=("each", "one"), default=defaults.view_masks, help="as in pre-training")
    add("--permutations", type=whole_number(1, 6), default=defaults.permutations, metavar="N", help="n_p of the paper")
    return parser


def _add_shards(parser: Parser) -> None:
    parser.add_argument("shards", metavar="DIR", help="folder or URL of shards")
    defaults = DataConfig()
    add, rest = parser.add_argument, parser.less_used
    _, timeout = add_fetching(add, "shards")
    rest(
        add(
            "--cache_gib",
            type=number(0),
            default=defaults.cache_gib,
            metavar="X",
            help="what they may take there; what was used longest ago goes",
        ),
        timeout,
    )


def _open_store(options: argparse.Namespace, split: str = "train") -> ShardStore:
    from spe_dist.data.shards.store import ShardStore

    return ShardStore.open(options.shards, split, options.cache_dir, options.cache_gib, options.fetch_timeout_s)


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"
