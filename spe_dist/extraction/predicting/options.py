"""What can be chosen for each call of `Extractor.predict` and its relatives."""

from __future__ import annotations

from typing import NamedTuple, TypedDict

from spe_dist.errors import ConfigError
from spe_dist.extraction.predicting.given import EntitiesChoice, check_choice
from spe_dist.extraction.predicting.results import MinProbability


class PredictOptions(TypedDict, total=False):
    """What can be chosen for each call, see `Extractor.predict`."""

    batch_size: int | None
    entities: EntitiesChoice
    min_probability: float
    min_probability_entities: float | None
    min_probability_relations: float | None


class Chosen(NamedTuple):
    """The options of a call."""

    batch_size: int | None
    limits: MinProbability
    given_entities: bool


def chosen_options(
    batch_size: int | None = None,
    entities: EntitiesChoice = "found",
    min_probability: float = 0.0,
    min_probability_entities: float | None = None,
    min_probability_relations: float | None = None,
) -> Chosen:
    """The options of a call, checked. Raises ConfigError."""
    if batch_size is not None and batch_size < 1:
        raise ConfigError(f"batch_size={batch_size} must be 1 or more, or None for as many as fit")
    limits = MinProbability.of(min_probability, min_probability_entities, min_probability_relations)
    return Chosen(batch_size, limits, check_choice(entities))
