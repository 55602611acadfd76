"""Scores of relations between gold entities, as PURE prints them: how good is the relation model by itself?

Predicted are relations alone (`spe predict --entities given`); the scores are those of `scores`, without the entities',
which are right by themselves. All gold relations count in recall, also those that no model of this kind can find.
"""

from __future__ import annotations

from spe_dist.errors import DataError
from spe_dist.extraction.corpora.corpus import Corpus
from spe_dist.extraction.scoring.alignment import aligned
from spe_dist.extraction.scoring.matching import METRICS, entity_key

GOLD_ENTITIES = "relations between gold entities"
RELATION_METRICS = tuple(metric for metric in METRICS if metric != "entity")


def check_gold_entities(gold: Corpus, predicted: Corpus) -> None:
    """Check that the predictions have the gold's entities.

    Raises:
        DataError: for the first sentence where they do not, or where the two do not hold the same sentences.
    """
    predicted = aligned(gold, predicted)
    for number, (ours, theirs) in enumerate(zip(gold.sentences, predicted.sentences, strict=True), start=1):
        right, given = ({entity_key(entity) for entity in sentence.entities} for sentence in (ours, theirs))
        if right == given:
            continue
        key = min(right ^ given, key=repr)
        where = f" ({theirs.origin or ours.origin})" if theirs.origin or ours.origin else ""
        raise DataError(
            f"sentence {number:,}{where}: the entity {key[0]!r} at words {key[1][0]} to {key[1][1]} is "
            f"{'missing from the predictions' if key in right else 'none of the gold'}; for scores with gold entities "
            "predict the gold file with `spe predict --entities given --format corpus`"
        )
