"""What the commands that train have in common: their options, and the config that they give."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spe_dist.cli.options.numbers import whole_number
from spe_dist.cli.options.parser import Parser
from spe_dist.cli.options.settings import add_settings
from spe_dist.config.loading import load_config
from spe_dist.config.presets import PRESETS

USAGE = "[--deepspeed NAME|FILE] [--preset NAME] [--config FILE] [--SETTING VALUE ...]"
STATUS = """Exit status: 0 finished; 1 failed; 2 wrong command, setting or file; 3 unstable (values that are not
finite, a loss that jumped); 75 stopped on request (signal, file OUTPUT/STOP, time limit) and saved, the same command
with --resume auto continues; 130 interrupted by Ctrl-C before it could save."""
SOURCES = "Later sources win: defaults (in brackets above), --preset, --config, command line."


@dataclass(frozen=True)
class TrainingOptions:
    """A training command line: the config, and what is asked for beside it.

    `given`: names of the settings that the command line itself has. `dry_run`: ranks to plan for, 0 for those of the
    launcher, None where the run is to be made.
    """

    config: Any
    deepspeed: str | None
    preset: str | None
    config_file: str | None
    given: dict[str, Any]
    print_config: bool
    dry_run: int | None


def training_parser(program: str, doc: str | None, config_class: type) -> Parser:
    """Options of a training command: presets, files, and one option for every setting."""
    parser = Parser(
        program, USAGE, f"{(doc or '').strip()}\n\n{SOURCES}\n\n{STATUS}", argument_default=argparse.SUPPRESS
    )
    add = parser.add_argument
    add("--deepspeed", metavar="NAME|FILE", help="zero1, zero2, zero2_offload, zero3 or a DeepSpeed JSON file [zero1]")
    add("--preset", metavar="|".join(PRESETS[config_class]), help="settings of a known run")
    add("--config", metavar="FILE", help="YAML file with settings")
    add("--print_config", action="store_true", help="only print all settings, as YAML that --config reads")
    add(
        "--dry_run",
        nargs="?",
        const=0,
        type=whole_number(1),
        metavar="RANKS",
        help="only print what would be trained on what, its memory and disk space; for RANKS ranks [the launcher's]",
    )
    add("--local_rank", type=int, help=argparse.SUPPRESS)  # the deepspeed launcher appends it
    add_settings(parser, config_class)
    return parser


def read_options(parser: Parser, argv: Sequence[str], config_class: type) -> TrainingOptions:
    """The options of a training command line, its config checked.

    Raises:
        ConfigError: for what is unknown, out of range or contradicts something else.
    """
    given = vars(parser.parse(argv))
    given.pop("local_rank", None)
    beside = {name: given.pop(name, None) for name in ("deepspeed", "preset", "print_config", "dry_run")}
    config_file = given.pop("config", None)
    config = load_config(preset=beside["preset"], yaml_file=config_file, given=given, config_class=config_class)
    return TrainingOptions(
        config,
        beside["deepspeed"],
        beside["preset"],
        config_file,
        given,
        bool(beside["print_config"]),
        beside["dry_run"],
    )
