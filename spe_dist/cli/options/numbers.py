"""Numbers on the command lines of the tools: each option says its range, and what lies outside is a user's error."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Literal

from spe_dist.extraction.joint.thresholds import LEAST


def whole_number(least: int = 0, most: int | None = None) -> Callable[[str], int]:
    """A `type` for argparse: whole numbers from `least` to `most`, both included; no `most`: no upper end."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        _check(value, text, least, most)
        return value

    return parse


def number(least: float = 0.0, most: float | None = None) -> Callable[[str], float]:
    """A `type` for argparse: finite numbers from `least` to `most`, both included; no `most`: no upper end."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not a number")
        _check(value, text, least, most)
        return value

    return parse


def threshold(text: str) -> float | Literal["argmax"]:
    """A `type` for argparse: a threshold of probability, or `argmax`, what is most probable."""
    return "argmax" if text == "argmax" else number(LEAST, 1)(text)


def _check(value: float, text: str, least: float, most: float | None) -> None:
    if value < least:
        raise argparse.ArgumentTypeError(f"{text} is too small; give at least {least:,}")
    if most is not None and value > most:
        raise argparse.ArgumentTypeError(f"{text} is too large; give at most {most:,}")
