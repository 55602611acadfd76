"""What the commands that score predictions have in common: their options."""

from __future__ import annotations

from spe_dist.cli.options.corpora import add_corpus_options
from spe_dist.cli.options.numbers import whole_number
from spe_dist.cli.options.parser import Parser

MAX_DRAWS = 1_000_000


def scoring_parser(program: str, usage: str, doc: str | None, min_draws: int) -> Parser:
    """A parser with --gold and how scores are computed. `min_draws`: of --bootstrap; 0: it may be left out."""
    parser = Parser(program, usage, doc)
    parser.add_argument("--gold", required=True, metavar="FILE", help="the corpus with its gold annotations")
    scores = parser.add_argument_group("scores")
    scores.add_argument(
        "--symmetric",
        type=_types,
        metavar="TYPE,TYPE",
        default=[],
        help="relation types whose direction does not matter [none]",
    )
    scores.add_argument(
        "--bootstrap",
        type=whole_number(min_draws, MAX_DRAWS),
        default=1000,
        metavar="N",
        help=f"draws for the 95%% intervals{'' if min_draws else '; 0: no intervals'}",
    )
    scores.add_argument("--seed", type=whole_number(), default=0, metavar="N", help="of all draws")
    add_corpus_options(parser)
    return parser


def _types(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
