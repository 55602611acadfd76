"""Make shards of raw text: words, pieces, blocks in WebDataset tars, and a manifest.

    spe shards make --input wiki/*.txt.xz books/ --output shards --tokenizer bert-base-cased

Input is plain, .gz, .xz or .zst text or JSON lines. Sentences are shuffled over the whole corpus, 0.5% are held out.
An interrupted run continues when the command is repeated.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from spe_dist.cli.exits import run_command
from spe_dist.data.build.plan import BuildSettings


def main(arguments: Sequence[str] | None = None) -> int:
    options = vars(_parser().parse_args(arguments))
    from spe_dist.data.build.make import make_shards

    inputs, output = options.pop("input"), options.pop("output")

    def make() -> None:
        make_shards(inputs, output, **options)

    return run_command(make, interrupted=f"interrupted; the same command continues in {output}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = BuildSettings()
    add = parser.add_argument
    add("--input", nargs="+", required=True, metavar="FILES", help="text files, folders or globs")
    add("--output", required=True, metavar="DIR", help="folder for shards, tokenizer and manifest.json")
    add("--tokenizer", help="WordPiece tokenizer: a name, a folder or a vocab.txt")
    add("--train_vocab", type=int, metavar="N", help="instead, train a vocabulary of N pieces on the input itself")
    add(
        "--do_lower_case",
        type=_boolean,
        metavar="true|false",
        help="lower-case the text; default: as the tokenizer says, or as its vocabulary is (a trained one: false)",
    )
    add(
        "--unit",
        choices=("auto", "sentences", "documents"),
        default=defaults.unit,
        help="one sentence a line, or documents that are split into sentences; auto looks whether lines of a sample "
        "hold several sentences or break off inside them",
    )
    add(
        "--words",
        choices=("auto", "spaces", "tokenizer"),
        default=defaults.words,
        help="words stand between spaces (tokenised text only), or are found by spaCy's English tokenizer; auto looks "
        "whether punctuation of a sample is attached to words",
    )
    add("--format", choices=("auto", "text", "jsonl"), default=defaults.format, help="auto: by each file's first line")
    add("--text_field", default=defaults.text_field, help="key of the text in JSON lines (default: %(default)s)")
    add("--seed", type=int, default=defaults.seed, help="seed of the shuffle (default: %(default)s)")
    add("--held_out", type=float, default=defaults.held_out, help="share of sentences held out (default: %(default)s)")
    add(
        "--max_pieces",
        type=int,
        default=defaults.max_pieces,
        help="longest sentence in pieces, [CLS] and [SEP] included; longer ones are skipped (default: %(default)s)",
    )
    add("--block_sentences", type=int, default=defaults.block_sentences, help="about (default: %(default)s)")
    add("--shard_sentences", type=int, default=defaults.shard_sentences, help="about (default: %(default)s)")
    add("--processes", type=int, help="worker processes (default: one a core, one alone for small inputs)")
    add(
        "--max_bad_share",
        type=float,
        default=0.01,
        help="share of undecodable lines from which the build fails (default: %(default)s)",
    )
    add("--overwrite", action="store_true", help="remove an earlier build of another request from DIR")
    add("--quiet", action="store_true", help="print nothing but warnings and errors")
    return parser


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


if __name__ == "__main__":
    sys.exit(main())
