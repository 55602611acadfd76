"""Options of what is read from URLs."""

from __future__ import annotations

from argparse import Action
from collections.abc import Callable

from spe_dist.cli.options.numbers import number
from spe_dist.config.pretraining import DataConfig


def add_fetching(add: Callable[..., Action], what: str) -> tuple[Action, Action]:
    """--cache_dir and --fetch_timeout_s, by a parser's or group's `add_argument`. what: is kept in the cache."""
    return (
        add("--cache_dir", metavar="DIR", help=f"where {what} of a URL are kept [the user's cache folder]"),
        add(
            "--fetch_timeout_s",
            type=number(0),
            default=DataConfig().fetch_timeout_s,
            metavar="X",
            help="seconds that a server or a pipe's command may send nothing, or less than 1 KiB/s, before it is ended "
            "and asked again",
        ),
    )
