"""What can be chosen for each call of `Extractor.predict` and its relatives."""

from __future__ import annotations

from numbers import Integral
from typing import NamedTuple, TypedDict

from spe_dist.errors import ConfigError
from spe_dist.extraction.joint.thresholds import ARGMAX, Choice, Thresholds, chosen_thresholds
from spe_dist.extraction.predicting.given import EntitiesChoice, check_choice
from spe_dist.extraction.predicting.results import MinProbability


class PredictOptions(TypedDict, total=False):
    """What can be chosen for each call, see `Extractor.predict`."""

    batch_size: int | None
    entities: EntitiesChoice
    min_probability: float
    min_probability_entities: float | None
    min_probability_relations: float | None
    threshold_entities: Choice
    threshold_relations: Choice


class Chosen(NamedTuple):
    """The options of a call."""

    batch_size: int | None
    limits: MinProbability
    given_entities: bool
    thresholds: Thresholds


def chosen_options(
    batch_size: int | None = None,
    entities: EntitiesChoice = "found",
    min_probability: float = 0.0,
    min_probability_entities: float | None = None,
    min_probability_relations: float | None = None,
    threshold_entities: Choice = None,
    threshold_relations: Choice = None,
    stored: Thresholds = ARGMAX,
) -> Chosen:
    """The options of a call, checked; `stored`: the thresholds of the model folder. Raises ConfigError."""
    if batch_size is not None and (not isinstance(batch_size, Integral) or batch_size < 1):
        raise ConfigError(f"batch_size={batch_size} must be a whole number from 1 on, or None for as many as fit")
    limits = MinProbability.of(min_probability, min_probability_entities, min_probability_relations)
    thresholds = chosen_thresholds(threshold_entities, threshold_relations, stored)
    return Chosen(batch_size, limits, check_choice(entities), thresholds)
