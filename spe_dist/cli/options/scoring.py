"""What the tools that score predictions have in common: their options."""

from __future__ import annotations

import argparse

from spe_dist.cli.options.numbers import whole_number
from spe_dist.config.loading import Parser

MOST_DRAWS = 1_000_000


def scoring_parser(program: str, usage: str, description: str | None, least_draws: int) -> Parser:
    """A parser with --gold and how scores are computed.

    description: a docstring, its first paragraph the summary. least_draws: of --bootstrap; 0: it may be left out.
    """
    summary, _, details = (description or "").partition("\n\n")
    parser = Parser(
        prog=program,
        usage=f"{program} {usage}",
        description=summary,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--gold", required=True, metavar="FILE", help="the sentences as they should be marked")
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
        type=whole_number(least_draws, MOST_DRAWS),
        default=1000,
        metavar="N",
        help=f"draws for the 95%% intervals{'' if least_draws else '; 0: no intervals'} [1000]",
    )
    scores.add_argument("--seed", type=whole_number(), default=0, metavar="N", help="of all draws [0]")
    return parser


def _types(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
