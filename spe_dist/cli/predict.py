"""Find entities and relations in text with a fine-tuned model: JSON lines out, one for each sentence.

    spe predict runs/conll04/model notes.txt --output notes.jsonl --html notes.html
    zcat news.txt.gz | spe predict runs/conll04/model > news.jsonl
    spe predict runs/conll04/model test.json --format corpus --output predicted.json
    spe predict runs/conll04/model marked.json --entities given --output related.jsonl

MODEL is the folder that fine-tuning writes (OUTPUT/model). An INPUT is a text file (UTF-8; blank lines separate
documents), JSON lines or a JSON list of texts, or of objects with text ("text") or words ("tokens", "words",
"sentences"), a corpus of any format that fine-tuning reads, CSV or TSV, Parquet or Arrow, articles of WikiExtractor or
WikiText, a folder or glob of such files, plain, .gz, .xz, .zst or .bz2, or a URL of them; "-" or none is standard
input. The format is recognised by content; only JSON lines of bare strings and tables without a header need a file name
that says so.

With --entities given, every INPUT is a corpus. Its entities stay as they are, whatever their types, with probability 1
unless they have one, and the model finds only the relations between them.

Output: {"file", "document", "line", "sentence", "text", "start", "end", "words", "word_offsets", "entities":
[{"type", "text", "start", "end", "words", "probability"}], "relations": [{"type", "head", "tail", "probability"}]}.
start, end: characters (Unicode code points), half-open, of a text file, of the text of a JSON record or table row, or
of a Wikipedia article without markup. words of an entity: half-open range of "words". head, tail: positions in
"entities".
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from typing import get_args

from spe_dist.cli.exits import run_command
from spe_dist.cli.options.corpora import add_corpus_options
from spe_dist.cli.options.fetching import add_fetching
from spe_dist.cli.options.languages import add_language
from spe_dist.cli.options.numbers import number, threshold, whole_number
from spe_dist.cli.options.parser import Parser
from spe_dist.data.text.formats.recognise import FormatChoice
from spe_dist.utils.hub import check_names

MOST_THREADS = 1_024


def build_parser() -> Parser:
    """The options of `spe predict`."""
    parser = Parser("spe predict", "MODEL [INPUT ...] [--output FILE] [--html FILE] [options]", __doc__)
    add = parser.add_argument
    add("model", metavar="MODEL", help="fine-tuned folder, or its name on the hub")
    add("inputs", metavar="INPUT", nargs="*", help="files, folders, globs or URLs [-: standard input]")

    _add_output(parser)
    _add_input(parser)
    _add_speed(parser)
    add_corpus_options(parser, with_language=False)
    return parser


def _add_output(parser: Parser) -> None:
    """What is found, and in which form it is written."""
    add, rest = parser.add_argument_group("output").add_argument, parser.less_used
    add("--output", metavar="FILE", help="JSON lines; the file appears when it is complete [standard output]")
    add("--html", metavar="FILE", help="also a page that shows the sentences; it needs no other file")
    add("--html_sentences", type=whole_number(0), default=200, metavar="N", help="sentences shown there, at most")
    add(
        "--format",
        choices=("jsonl", "corpus"),
        default="jsonl",
        help="jsonl, or corpus: the corpus format of the input, with predictions in place of gold, for spe score",
    )
    add(
        "--entities",
        choices=("found", "given"),
        default="found",
        help="given: take the entities of the input, which is a corpus, and find only relations between them",
    )
    add(
        "--threshold_entities",
        type=threshold,
        metavar="X",
        help="find all spans with at least this probability, even where no entity is more probable; argmax: what is "
        "most probable [stored in the model, else argmax]",
    )
    add("--threshold_relations", type=threshold, metavar="X", help="the same for relations")
    add(
        "--min_probability",
        type=number(0, 1),
        default=0.0,
        metavar="X",
        help="then leave out less probable ones",
    )
    rest(
        add("--min_probability_entities", type=number(0, 1), metavar="X", help="of entities [--min_probability]"),
        add("--min_probability_relations", type=number(0, 1), metavar="X", help="of relations [--min_probability]"),
    )
    add("--quiet", action="store_true", help="no progress and no summary")


def _add_input(parser: Parser) -> None:
    """How the inputs are read."""
    add, rest = parser.add_argument_group("input").add_argument, parser.less_used
    add(
        "--input_format",
        choices=get_args(FormatChoice),
        default="auto",
        help="auto: by content and name; csv: also TSV and the like; json: lines or a list",
    )
    add(
        "--tokenised",
        "--tokenized",
        action="store_true",
        help="text is one sentence a line, its words separated by spaces",
    )
    rest(
        add(
            "--lines",
            choices=("auto", "wrapped", "separate"),
            default="auto",
            help="wrapped: a sentence may continue in the next line; auto: as the first 256 KiB look",
        ),
        add(
            "--text_field",
            default="text",
            metavar="NAME",
            help="field or column of the text; by its path in a record (body.paragraphs), in a table also by number",
        ),
        add_language(add, None, " [as the model was trained]"),
        add("--skip_bad", action="store_true", help="leave out lines that cannot be read, and count them"),
    )
    rest(*add_fetching(add, "inputs"))


def _add_speed(parser: Parser) -> None:
    add, rest = parser.add_argument_group("speed").add_argument, parser.less_used
    rest(
        add("--batch_size", type=whole_number(1), metavar="N", help="sentences of a batch at most [as many as fit]"),
        add("--batch_pieces", type=whole_number(1), default=4096, metavar="N", help="word pieces computed at a time"),
        add(
            "--threads",
            type=whole_number(1, MOST_THREADS),
            metavar="N",
            help="batches computed at a time on a CPU [a core each]",
        ),
    )
    add("--device", default="auto", metavar="NAME", help="cpu, cuda or cuda:N [auto: a GPU where there is one]")
    add(
        "--bfloat16",
        action=argparse.BooleanOptionalAction,
        help="matrix products in bfloat16 [where the device has instructions for it]",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status is explained in `spe_dist.cli.exits`."""
    return run_command(lambda: _run(sys.argv[1:] if argv is None else argv))


def _run(argv: Sequence[str]) -> None:
    options = build_parser().parse(argv)
    options.inputs = options.inputs or ["-"]
    check_names(model=options.model)
    from spe_dist.extraction.predicting.files import predict_files

    predict_files(options)
    if options.format == "corpus" and options.output and not options.quiet:
        words = ("spe", "score", "--gold", options.inputs[0], "--predictions", options.output)
        print(f"next: {shlex.join(words)}", file=sys.stderr)
