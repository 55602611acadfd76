"""What the tools that score predictions have in common: their options."""

from __future__ import annotations

import argparse

from spe_dist.config_loading import Parser

MOST_DRAWS = 1_000_000


def scoring_parser(program: str, usage: str, description: str | None) -> Parser:
    """A parser with --gold and how scores are computed; `description`: a docstring, its first paragraph the summary."""
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
        "--bootstrap", type=_draws, default=1000, metavar="N", help="draws for the 95%% intervals [1000]"
    )
    scores.add_argument("--seed", type=int, default=0, help="of all draws [0]")
    return parser


def _types(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _draws(text: str) -> int:
    if not text.lstrip("-").isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    if int(text) > MOST_DRAWS:
        raise argparse.ArgumentTypeError(f"{text} draws are more than any interval needs; give at most {MOST_DRAWS:,}")
    return int(text)
