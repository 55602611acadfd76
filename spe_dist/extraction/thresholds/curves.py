"""Precision, recall and F1 by the least probability of an entity and of a relation, and the thresholds of best F1.

One prediction with low thresholds holds those with all higher ones (see `joint/choices`), so every point of a curve
comes from the same predictions: what is less probable is left out, and relations of entities that are left out.
Nothing here knows a model.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from spe_dist.extraction.corpora.corpus import Corpus, Entity
from spe_dist.extraction.scoring.alignment import aligned
from spe_dist.extraction.scoring.counts import Counts
from spe_dist.extraction.scoring.matching import ent_rel_key, entity_key, mark_gold, relation_key
from spe_dist.extraction.scoring.scores import score

GRID = tuple(number / 100 for number in range(1, 100))
LENGTHS = ((1, 1), (2, 2), (3, 3), (4, 4), (5, None))  # words of entities, both ends inclusive


@dataclass(frozen=True)
class EntityPoint:
    """Scores of the entities of at least a probability."""

    threshold: float
    entity: Counts


@dataclass(frozen=True)
class RelationPoint:
    """Scores of the relations of at least a probability, between entities of at least theirs."""

    threshold: float
    relation: Counts
    ent_rel: Counts


@dataclass(frozen=True)
class LengthRow:
    """Entities of so many words: how many are predicted, their mean probability, the share of them that is right."""

    words: str
    predicted: int
    probability: float
    right: float


@dataclass(frozen=True)
class Curves:
    """What thresholds do on one corpus.

    Attributes:
        entities: points in order of GRID.
        relations: the same, between entities of at least `best_entities`.
        best_entities: the threshold of best Entity F1.
        best_relations: that of best Ent+Rel F1, between entities of at least `best_entities`.
        by_length: of all entities of at least the lowest threshold.
    """

    entities: tuple[EntityPoint, ...]
    relations: tuple[RelationPoint, ...]
    best_entities: float
    best_relations: float
    by_length: tuple[LengthRow, ...]


class _FoundEntity(NamedTuple):
    probability: float
    is_right: bool
    words: int


class _FoundRelation(NamedTuple):
    probability: float
    of_arguments: float  # the lower one of its entities
    is_right: bool
    is_right_with_types: bool


def threshold_curves(gold: Corpus, predicted: Corpus, symmetric: Collection[str] = ()) -> Curves:
    """The curves of a prediction with thresholds of at most GRID's lowest.

    Args:
        predicted: the corpus of `gold`, all entities and relations with their probabilities, the arguments of relations
            among the entities of their sentence.
        symmetric: relation types whose direction does not matter.

    Raises:
        DataError: the two corpora do not hold the same sentences.
    """
    predicted = aligned(gold, predicted)
    entities, relations = _found(gold, predicted, symmetric)
    totals = score(gold, predicted, symmetric)
    entity_points = tuple(
        EntityPoint(
            threshold, _counts((e.is_right for e in entities if e.probability >= threshold), totals.entity.gold)
        )
        for threshold in GRID
    )
    best_entities = _best(entity_points, lambda point: point.entity.f1)
    relation_points = []
    for threshold in GRID:
        kept = [r for r in relations if r.probability >= threshold and r.of_arguments >= best_entities]
        relation_points.append(
            RelationPoint(
                threshold,
                _counts((r.is_right for r in kept), totals.relation.gold),
                _counts((r.is_right_with_types for r in kept), totals.ent_rel.gold),
            )
        )
    best_relations = _best(relation_points, lambda point: point.ent_rel.f1)
    return Curves(tuple(entity_points), tuple(relation_points), best_entities, best_relations, _by_length(entities))


def _found(
    gold: Corpus, predicted: Corpus, symmetric: Collection[str]
) -> tuple[list[_FoundEntity], list[_FoundRelation]]:
    entities, relations = [], []
    for ours, theirs in zip(gold.sentences, predicted.sentences, strict=True):
        marked = mark_gold(ours, symmetric)
        for entity in theirs.entities:
            is_right = entity_key(entity) in marked.entity
            entities.append(_FoundEntity(_probability(entity), is_right, entity.end - entity.start))
        chances = {entity: _probability(entity) for entity in theirs.entities}
        for relation in theirs.relations:
            assert relation.probability is not None
            relations.append(
                _FoundRelation(
                    relation.probability,
                    min(chances[relation.head], chances[relation.tail]),
                    relation_key(relation, symmetric) in marked.relation,
                    ent_rel_key(relation, symmetric) in marked.ent_rel,
                )
            )
    return entities, relations


def _probability(entity: Entity) -> float:
    assert entity.probability is not None, "entities of a prediction have probabilities"
    return entity.probability


def _counts(right: Iterable[bool], gold: int) -> Counts:
    values = list(right)
    return Counts(sum(values), len(values), gold)


Point = TypeVar("Point", EntityPoint, RelationPoint)


def _best(points: Sequence[Point], f1: Callable[[Point], float]) -> float:
    """The threshold of the best F1; of several next to each other the middle one, of several runs the longest."""
    best = max(f1(point) for point in points)
    runs: list[list[float]] = [[]]
    for point in points:
        if f1(point) == best:
            runs[-1].append(point.threshold)
        elif runs[-1]:
            runs.append([])
    longest = max(runs, key=len)
    return longest[(len(longest) - 1) // 2]


def _by_length(entities: Sequence[_FoundEntity]) -> tuple[LengthRow, ...]:
    rows = []
    for low, high in LENGTHS:
        some = [e for e in entities if low <= e.words and (high is None or e.words <= high)]
        if some:
            name = f"{low} or more" if high is None else str(low)
            mean, right = sum(e.probability for e in some) / len(some), sum(e.is_right for e in some) / len(some)
            rows.append(LengthRow(name, len(some), mean, right))
    return tuple(rows)
