"""Choose probability thresholds on dev: precision, recall and F1 of a model for each threshold.

    spe thresholds RUN/model dev.json --output RUN/thresholds --keep
    spe predict RUN/model notes.txt                                     with the stored thresholds
    spe predict RUN/model notes.txt --threshold_relations 0.8           fewer relations, more of them right

Without thresholds a prediction is what the model finds most probable (argmax). With them, it has every entity and
every relation whose probability reaches the threshold: a lower one finds more, a higher one less. The table shows what
each threshold does on DEV, and names the one with the best Entity F1 and, between these entities, the one with the best
Ent+Rel F1, with a paired test against argmax. Never choose on the test part of a corpus: --test shows what the chosen
thresholds do there.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from spe_dist.cli.exits import run_command
from spe_dist.cli.options.corpora import add_corpus_options
from spe_dist.cli.options.numbers import whole_number
from spe_dist.cli.options.parser import Parser
from spe_dist.utils.hub import check_names


def build_parser() -> Parser:
    """The options of `spe thresholds`."""
    parser = Parser("spe thresholds", "MODEL DEV [--test FILE] [--output FOLDER] [--keep] [options]", __doc__)
    add = parser.add_argument
    add("model", metavar="MODEL", help="fine-tuned folder, or its name on the hub")
    add("dev", metavar="DEV", help="a corpus with gold that the model was not trained on")
    add("--test", metavar="FILE", help="also score the chosen thresholds on this corpus")
    add("--output", metavar="FOLDER", help="write thresholds.csv (every point) and thresholds.png (curves)")
    add(
        "--keep",
        action="store_true",
        help="store the chosen ones in MODEL, as its defaults for prediction",
    )
    add("--symmetric", metavar="TYPE,TYPE", help="relation types whose direction does not matter [the model's]")
    add("--device", default="auto", metavar="NAME", help="cpu, cuda or cuda:N [auto: a GPU where there is one]")
    parser.less_used(
        add("--batch_pieces", type=whole_number(1), default=4096, metavar="N", help="word pieces computed at a time"),
        add("--seed", type=whole_number(), default=0, metavar="N", help="of the paired test's draws"),
    )
    add_corpus_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status is explained in `spe_dist.cli.exits`."""
    return run_command(lambda: _run(sys.argv[1:] if argv is None else argv))


def _run(argv: Sequence[str]) -> None:
    options = build_parser().parse(argv)
    check_names(model=options.model)
    from spe_dist.extraction.thresholds.choose import choose_thresholds

    for part in choose_thresholds(options):
        print(part, flush=True)
