"""Thresholds of probability, of one prediction or kept with a model. What they choose is said in `choices`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from spe_dist.errors import ConfigError

LEAST = 0.01  # a threshold below it would type hundreds of spans a word


@dataclass(frozen=True)
class Thresholds:
    """The least probability of an entity and of a relation; None: the most probable class decides.

    Raises:
        ConfigError: a threshold is not from LEAST to 1.
    """

    entities: float | None = None
    relations: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not is_threshold(value):
                raise ConfigError(
                    f"threshold_{name}={value!r} is not a threshold; give a number from {LEAST:g} to 1, or 'argmax'"
                )

    def __str__(self) -> str:
        return ", ".join(f"{name} {'argmax' if x is None else f'{x:g}'}" for name, x in vars(self).items())


ARGMAX = Thresholds()


def is_threshold(value: Any) -> bool:
    """Whether a value is a number from LEAST to 1."""
    return isinstance(value, int | float) and not isinstance(value, bool) and LEAST <= value <= 1


Choice = float | Literal["argmax"] | None  # for a call: None is what the model folder says


def chosen_thresholds(entities: Choice, relations: Choice, stored: Thresholds) -> Thresholds:
    """The thresholds of a call, where `stored` are those of the model folder. Raises ConfigError."""

    def choose(choice: Choice, kept: float | None) -> float | None:
        return kept if choice is None else None if choice == "argmax" else choice

    return Thresholds(choose(entities, stored.entities), choose(relations, stored.relations))
