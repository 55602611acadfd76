"""One option for every setting of a config class."""

from __future__ import annotations

import argparse
import typing
from typing import Any

from spe_dist.cli.options.parser import Parser
from spe_dist.config.loading import Leaf, leaves

MOST_CHOICES_IN_A_ROW = 6  # more are listed in the help text


def add_settings(parser: Parser, config_class: type) -> None:
    """Add the settings, grouped by section, with their defaults in the help text.

    What the command line does not give is absent from the parsed arguments, so that presets and files may set it.
    """
    sections = typing.get_type_hints(config_class)
    groups = {s: parser.add_argument_group(s, (t.__doc__ or "").splitlines()[0]) for s, t in sections.items()}
    for leaf in leaves(config_class).values():
        options: dict[str, Any] = {"metavar": _metavar(leaf), "default": argparse.SUPPRESS}
        if leaf.type is bool:
            options |= {"nargs": "?", "const": True}
        listed = f": {', '.join(_choices(leaf))}" if len(_choices(leaf)) > MOST_CHOICES_IN_A_ROW else ""
        help_text = f"{leaf.help}{listed} [{_text(leaf.default)}]".replace("%", "%%")
        action = groups[leaf.section].add_argument(f"--{leaf.name}", help=help_text, **options)
        if not leaf.common:
            parser.less_used(action)
        if typing.get_origin(leaf.type) is tuple:
            parser.may_be_empty(action)


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return str(value)


def _choices(leaf: Leaf) -> tuple[str, ...]:
    return typing.get_args(leaf.type) if typing.get_origin(leaf.type) is typing.Literal else ()


def _metavar(leaf: Leaf) -> str:
    if choices := _choices(leaf):
        return "|".join(choices) if len(choices) <= MOST_CHOICES_IN_A_ROW else "NAME"
    if typing.get_origin(leaf.type) is tuple:
        return "N,N,.." if typing.get_args(leaf.type)[0] is int else "TEXT,TEXT,.."
    if leaf.type is bool:
        return "true|false"
    return {int: "N", float: "X"}.get(leaf.type, "TEXT")
