"""What benchmarks of pre-training have in common on their command lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from spe_dist.cli.options.numbers import whole_number
from spe_dist.cli.options.parser import Parser
from spe_dist.config.loading import leaves
from spe_dist.errors import ConfigError


def set_option(command: Parser) -> None:
    """Add `--set`."""
    text = "another setting of pre-training; repeatable"
    command.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=text)


def settings(given: Iterable[str]) -> dict[str, str]:
    """What `--set` was given.

    Raises:
        ConfigError: one is no NAME=VALUE of a known setting.
    """
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name not in leaves():
            raise ConfigError(f"--set {text}: give NAME=VALUE with a setting that spe pretrain --help-all lists")
        found[name] = value
    return found


def whole_numbers(least: int, most: int | None = None) -> Callable[[str], list[int]]:
    """A `type` for argparse: different whole numbers between commas, in ascending order."""

    def parse(text: str) -> list[int]:
        return sorted({whole_number(least, most)(part) for part in text.split(",")})

    return parse
