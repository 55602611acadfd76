"""The options of `spe shards` and its commands."""

from __future__ import annotations

import argparse
import re
from typing import get_args

from spe_dist.cli.options.fetching import add_fetching
from spe_dist.cli.options.languages import add_language
from spe_dist.cli.options.numbers import number, whole_number
from spe_dist.cli.options.parser import Parser
from spe_dist.config.pretraining import CorruptionConfig, DataConfig
from spe_dist.data.build.settings import BuildSettings, DropChoice
from spe_dist.data.text.formats.recognise import FormatChoice
from spe_dist.data.text.paragraphs import LinesChoice


def make_parser(doc: str | None) -> Parser:
    """The options of `spe shards make`."""
    parser = Parser("spe shards make", "--input FILES --output DIR --tokenizer NAME [options]", doc)
    add, rest = parser.add_argument, parser.less_used
    add("--input", nargs="+", required=True, metavar="FILES", help="text files, folders, globs or URLs")
    add("--output", required=True, metavar="DIR", help="folder for shards, tokenizer and manifest.json")
    add("--tokenizer", metavar="NAME|FOLDER|FILE", help="WordPiece tokenizer: a name, a folder or a vocab.txt")
    add("--train_vocab", type=whole_number(1), metavar="N", help="or train a vocabulary of N pieces on the input")
    add(
        "--do_lower_case",
        type=_boolean,
        metavar="true|false",
        help="lower-case the text [as the tokenizer says, or as its vocabulary is; a trained one: false]",
    )
    add("--overwrite", action="store_true", help="replace shards in DIR that were made with other options")
    add("--processes", type=whole_number(1), metavar="N", help="worker processes [one a core; for small inputs one]")
    rest(add("--quiet", action="store_true", help="print nothing but warnings and errors"))
    defaults = BuildSettings()
    _add_reading(parser, defaults)
    _add_choice_of_sentences(parser, defaults)
    _add_executor(parser)
    return parser


def _add_reading(parser: Parser, defaults: BuildSettings) -> None:
    """How files become texts, sentences and words."""
    add, rest = parser.add_argument_group("how the input is read").add_argument, parser.less_used
    add(
        "--unit",
        choices=("auto", "sentences", "documents"),
        default=defaults.unit,
        help="sentences: one a line; documents: text that is split into sentences; auto: documents where lines of a "
        "sample have several sentences or are wrapped",
    )
    add(
        "--lines",
        choices=get_args(LinesChoice),
        default=defaults.lines,
        help="wrapped: a sentence may continue in the next line; separate: it ends with the line; auto: wrapped where "
        "a file's lines look broken at a width",
    )
    add(
        "--words",
        choices=("auto", "spaces", "tokenizer"),
        default=defaults.words,
        help="spaces: words are what is between spaces (tokenised text); tokenizer: words are found by rules of the "
        "language; auto: tokenizer where punctuation of a sample is attached to words",
    )
    add_language(add, defaults.language)
    rest(
        add(
            "--format",
            choices=get_args(FormatChoice),
            default=defaults.format,
            help="auto: by each file's content; text: as it is; csv: also TSV and the like; json: lines or a list",
        ),
        add(
            "--text_field",
            default=defaults.text_field,
            metavar="NAME",
            help="field or column of the text; by its path in a record (body.paragraphs), in a table also by number",
        ),
        add(
            "--max_bad_share",
            type=number(0, 1),
            default=0.01,
            metavar="X",
            help="share of undecodable lines from which the command fails",
        ),
        *add_fetching(add, "texts"),
    )


def _add_choice_of_sentences(parser: Parser, defaults: BuildSettings) -> None:
    """Which sentences go into which shard."""
    add, rest = parser.add_argument_group("which sentences the shards have").add_argument, parser.less_used
    add(
        "--drop_duplicates",
        choices=get_args(DropChoice),
        default=defaults.drop_duplicates,
        help="exact: drop sentences that repeat an earlier one word for word; near: also those that differ only in "
        "case and spaces; none: keep all. They are counted in any case",
    )
    add("--held_out", type=number(), default=defaults.held_out, metavar="X", help="share of sentences held out")
    add(
        "--max_pieces",
        type=whole_number(),
        default=defaults.max_pieces,
        metavar="N",
        help="longest sentence in pieces, [CLS] and [SEP] included; longer ones are skipped",
    )
    rest(
        add("--seed", type=whole_number(), default=defaults.seed, metavar="N", help="seed of the shuffle"),
        add(
            "--block_sentences",
            type=whole_number(),
            default=defaults.block_sentences,
            metavar="N",
            help="sentences of a block, about",
        ),
        add(
            "--shard_sentences",
            type=whole_number(),
            default=defaults.shard_sentences,
            metavar="N",
            help="sentences of a shard, about",
        ),
    )


def _add_executor(parser: Parser) -> None:
    """Options of a build that is divided over machines."""
    add, rest = parser.add_argument_group("on a cluster").add_argument, parser.less_used
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
        ),
        add("--slurm_time", metavar="TIME", help="time limit of a task, as sbatch takes it [4:00:00]"),
        add("--slurm_partition", metavar="NAME", help="partition of the tasks [the cluster's default]"),
        add("--slurm_memory_gib", type=whole_number(1), metavar="N", help="memory of each process of a task [4]"),
        add(
            "--slurm_sbatch",
            type=_sbatch_option,
            action="append",
            metavar="NAME=VALUE",
            help="a further option of sbatch by its long name, such as account=nlp; may be given several times",
        ),
        add("--slurm_wait", action="store_true", help="return when the shards are made, not when jobs are submitted"),
    )


def verify_parser(doc: str | None) -> Parser:
    """The options of `spe shards verify`."""
    parser = Parser("spe shards verify", "DIR [options]", doc)
    _add_shards(parser)
    return parser


def index_parser(doc: str | None) -> Parser:
    """The options of `spe shards index`."""
    parser = Parser("spe shards index", "DIR", doc)
    parser.add_argument("shards", metavar="DIR", help="folder of shards")
    return parser


def show_parser(doc: str | None) -> Parser:
    """The options of `spe shards show`."""
    parser = Parser("spe shards show", "DIR --sentence N [options]", doc)
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
            help="space for them there; the least recently used are removed",
        ),
        timeout,
    )


def _sbatch_option(text: str) -> tuple[str, str]:
    name, _, value = text.removeprefix("--").partition("=")
    if not re.fullmatch(r"[a-z][a-z-]*", name) or "\n" in value:
        raise argparse.ArgumentTypeError(f"{text!r} is not a NAME=VALUE, such as account=nlp")
    return name, value


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"
