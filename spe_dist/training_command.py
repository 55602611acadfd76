"""What the entry points that train have in common: their options, and how they end in an error."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from spe_dist import __version__
from spe_dist.config import Config
from spe_dist.config_loading import Parser, add_settings
from spe_dist.errors import DivergenceError, SpeError, TrainingFailure

OTHER_RANKS_WAIT_S = 3.0


def training_parser(
    program: str, description: str | None, presets: Mapping[str, Any], config_class: type = Config
) -> Parser:
    """Options of a training program: presets, files, and one option for every setting."""
    parser = Parser(
        prog=program,
        usage=f"{program} [--deepspeed FILE] [--preset NAME] [--config FILE] [--SETTING VALUE ...]",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        epilog="Later sources win: defaults (in brackets above), --preset, --config, command line.",
    )
    parser.add_argument(
        "--deepspeed", metavar="FILE", help="DeepSpeed config, e.g. ds_configs/zero2.json [ZeRO stage 1]"
    )
    parser.add_argument("--preset", metavar="|".join(presets), help="settings of a known run")
    parser.add_argument("--config", metavar="FILE", help="YAML file with settings")
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # the deepspeed launcher appends it
    parser.add_argument("--version", action="version", version=f"spe_dist {__version__}")
    add_settings(parser, config_class)
    return parser


def exit_status(program: Callable[[], int]) -> int:
    """Run it. Exit status: 0 finished or stopped as asked, 1 training failed, 2 a user's error."""
    try:
        return program()
    except (SpeError, TrainingFailure, DivergenceError) as error:
        _report(error)
        return 2 if isinstance(error, SpeError) else 1


def _report(error: Exception) -> None:
    """Print an error once: the other ranks wait, since the launcher ends them when rank 0 has failed likewise."""
    rank = os.environ.get("RANK", "0")
    if rank != "0":
        time.sleep(OTHER_RANKS_WAIT_S)
    sys.stdout.flush()
    print(f"{f'rank {rank}: ' if rank != '0' else ''}error: {error}", file=sys.stderr, flush=True)
