"""What the entry points that train have in common: their options, and how they end in an error."""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from spe_dist import __version__
from spe_dist.cli.exits import INTERRUPTED, USER_ERROR
from spe_dist.config.loading import Parser, add_settings
from spe_dist.config.pretraining import Config
from spe_dist.errors import DivergenceError, SpeError, TrainingFailure

OTHER_RANKS_WAIT_S = 3.0  # for the launcher, which ends the others once rank 0 has said the same


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
    """Run it. Exit status: 0 finished or stopped as asked, 1 training failed or lost a rank, 2 a user's error.

    130 where Ctrl-C ended it at once: before the run could save, or pressed a second time.
    """
    try:
        return program()
    except (SpeError, TrainingFailure, DivergenceError) as error:
        if _rank() != "0":
            time.sleep(OTHER_RANKS_WAIT_S)
        _report(str(error))
        return USER_ERROR if isinstance(error, SpeError) else 1
    except RuntimeError as error:
        if not _connection_lost(error):
            raise
        traceback.print_exc()
        _report(
            "the connection to another rank is lost: that rank has ended, as its own last lines may tell, or did not "
            "answer within timeout_s. Checkpoints are kept; continue with --resume auto"
        )
        return 1
    except KeyboardInterrupt:
        if _rank() == "0":
            sys.stdout.flush()
            print(
                "interrupted without saving; checkpoints made before are kept, and the same command with --resume auto "
                "goes on from the newest",
                file=sys.stderr,
            )
        return INTERRUPTED


def _connection_lost(error: RuntimeError) -> bool:
    """Whether a collective failed for want of its other ranks. gloo has no type of error of its own."""
    backend = sys.modules.get("torch.distributed")
    return "gloo" in str(error) or (backend is not None and isinstance(error, backend.DistError))


def _rank() -> str:
    return os.environ.get("RANK", "0")


def _report(message: str) -> None:
    sys.stdout.flush()
    print(f"{f'rank {_rank()}: ' if _rank() != '0' else ''}error: {message}", file=sys.stderr, flush=True)
