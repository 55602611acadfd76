"""Entity, Relation and Ent+Rel precision, recall and F1 (METHOD.md, Scores; paper, section 4 and Tables 2-9).

An entity is right where its type and boundaries are; a relation where its type, its direction and the boundaries of
both arguments are; Ent+Rel (the paper's "exactly match") also asks for the types of both arguments. The scores are
micro averages over sets, so duplicates count once, in gold and in predictions.

- All gold counts in recall: entities that overlap or have gaps, what lies across sentences, relations whose arguments
  are marked as no entities (an argument without a type has no right one, so such a relation is never right in Ent+Rel).
- A predicted relation counts as predicted only where its arguments are among the predicted entities, for Ent+Rel with
  the types that the relation gives them; `notices` says how many do not.
- Relations have a direction. Types named as symmetric have none: their two directions are one relation.
- Several types on one span are several entities, and relations of each are several relations in Ent+Rel.
- Precision is 0 without predictions, recall is 0 without gold, and F1 = 2 tp / (predicted + gold) is 0 without either;
  tables show a dash in this last case, where there was nothing to find and nothing was found.

Nothing here knows a model or a file format.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spe_dist.extraction.corpus import Corpus
from spe_dist.extraction.matching import (
    METRICS,
    AcrossSentences,
    Marked,
    check_aligned,
    mark_across,
    mark_gold,
    mark_predicted,
)

ACROSS = "across sentences"
MOST_ENTITIES = 9
LENGTH_BUCKETS = ((0, 10), (11, 20), (21, 30), (31, 50))  # words, both ends inclusive; longer ones follow

Name = tuple[str, str | None]  # metric and type; None for the sum over all types


@dataclass(frozen=True)
class Counts:
    """How many are right (`tp`), predicted and gold; fractions of 1 from them."""

    tp: int = 0
    predicted: int = 0
    gold: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.predicted + other.predicted, self.gold + other.gold)

    @property
    def precision(self) -> float:
        return self.tp / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        return self.tp / self.gold if self.gold else 0.0

    @property
    def f1(self) -> float:
        return 2 * self.tp / (self.predicted + self.gold) if self.predicted + self.gold else 0.0

    @property
    def is_empty(self) -> bool:
        return self.predicted + self.gold == 0

    def to_json(self) -> dict[str, float | int]:
        return {
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "tp": self.tp,
            "predicted": self.predicted,
            "gold": self.gold,
        }


@dataclass(frozen=True)
class Group:
    """The three scores over some of the sentences."""

    sentences: int = 0
    entity: Counts = Counts()
    relation: Counts = Counts()
    ent_rel: Counts = Counts()

    def to_json(self) -> dict[str, Any]:
        return {"sentences": self.sentences, **{metric: getattr(self, metric).to_json() for metric in METRICS}}


@dataclass(frozen=True)
class UnitCounts:
    """Counts of each unit that a resampling draws: a document, or a sentence where the format has no documents.

    counts_UN3[u, n] holds tp, predicted and gold of unit u for names[n].
    """

    names: tuple[Name, ...]
    counts_UN3: np.ndarray


@dataclass(frozen=True)
class Scores:
    """Scores of one set of predictions. `with_direction` holds those with direction where symmetric types are named."""

    entity: Counts
    relation: Counts
    ent_rel: Counts
    entity_by_type: dict[str, Counts]
    relation_by_type: dict[str, Counts]
    ent_rel_by_type: dict[str, Counts]
    by_entities: dict[str, Group]  # by distinct gold entities in the sentence
    by_length: dict[str, Group]  # by words of the sentence
    sentences: int
    documents: int
    symmetric: tuple[str, ...] = ()
    with_direction: Scores | None = None
    notices: dict[str, int] = field(default_factory=dict)
    units: UnitCounts = field(default_factory=lambda: UnitCounts((), np.zeros((0, 0, 3), np.int32)), compare=False)

    @property
    def exact_f1_sum(self) -> float:
        """Entity F1 + Ent+Rel F1, by which fine-tuning keeps the best epoch (METHOD.md, Fine-tuning)."""
        return self.entity.f1 + self.ent_rel.f1

    @property
    def direction(self) -> str:
        """The convention in words."""
        if not self.symmetric:
            return "relations with direction (the default)"
        return f"relations with direction, but {', '.join(self.symmetric)} without"

    def by_type(self, metric: str) -> dict[str, Counts]:
        return getattr(self, f"{metric}_by_type")

    def to_json(self) -> dict[str, Any]:
        """Numbers for machines: fractions of 1 and counts, under the names of the attributes."""
        return {
            "sentences": self.sentences,
            "documents": self.documents,
            "direction": self.direction,
            "symmetric": list(self.symmetric),
            **{metric: getattr(self, metric).to_json() for metric in METRICS},
            **{
                f"{metric}_by_type": {name: counts.to_json() for name, counts in self.by_type(metric).items()}
                for metric in METRICS
            },
            "by_entities": {name: group.to_json() for name, group in self.by_entities.items()},
            "by_length": {name: group.to_json() for name, group in self.by_length.items()},
            "notices": dict(self.notices),
            "with_direction": None if self.with_direction is None else self.with_direction.to_json(),
        }

    def table(self, by_type: bool = True, by_group: bool = False) -> str:
        """Aligned text in percent, as in Tables 2, 8 and 9; with `by_group` also the curves of Figure 5."""
        from spe_dist.extraction.score_table import scores_table

        return scores_table(self, by_type=by_type, by_group=by_group)


def score(gold: Corpus, predicted: Corpus, symmetric: Collection[str] = ()) -> Scores:
    """Compare predictions with gold, sentence by sentence in order.

    `symmetric` names relation types whose direction does not matter; `Scores.with_direction` then has the scores of the
    usual convention too. Raises DataError where the two corpora do not hold the same sentences.
    """
    check_aligned(gold, predicted)
    directed = _score(gold, predicted, ()) if symmetric else None
    return _score(gold, predicted, tuple(sorted(set(symmetric))), directed)


Tally = dict[Name, list[int]]  # tp, predicted, gold


def _score(gold: Corpus, predicted: Corpus, symmetric: tuple[str, ...], with_direction: Scores | None = None) -> Scores:
    notices: Counter[str] = Counter()
    across = mark_across(gold, predicted, symmetric, notices)
    predicted_sentences = iter(predicted.sentences)
    units: list[Tally] = []
    groups: dict[str, dict[str, Tally]] = {"entities": defaultdict(_new_tally), "length": defaultdict(_new_tally)}
    sizes: dict[str, Counter[str]] = {"entities": Counter(), "length": Counter()}
    for document in gold.documents:
        unit = _new_tally()
        for sentence in document.sentences:
            theirs = next(predicted_sentences)
            marked, found = mark_gold(sentence, symmetric), mark_predicted(theirs, symmetric, notices)
            buckets = {"entities": _entities_bucket(len(marked.entity)), "length": _length_bucket(len(sentence.words))}
            _add(unit, marked, found)
            for kind, bucket in buckets.items():
                sizes[kind][bucket] += 1
                _add(groups[kind][bucket], marked, found)
        units.append(unit)
    _add_across(across, units, groups)
    _count_duplicates(gold, "gold", notices)
    _count_duplicates(predicted, "predicted", notices)
    return _collect(gold, units, groups, sizes, symmetric, with_direction, notices)


def _new_tally() -> Tally:
    return defaultdict(lambda: [0, 0, 0])


def _add(tally: Tally, gold: Marked, predicted: Marked) -> None:
    """Count both sets of keys into `tally`, by metric and type (the first part of each key)."""
    for metric in METRICS:
        ours, theirs = gold.keys(metric), predicted.keys(metric)
        for part, keys in enumerate((ours & theirs, theirs, ours)):
            for key in keys:
                tally[metric, key[0]][part] += 1


def _add_across(across: AcrossSentences, units: list[Tally], groups: dict[str, dict[str, Tally]]) -> None:
    for number in across.gold.keys() | across.predicted.keys():
        marked, found = across.gold.get(number, Marked()), across.predicted.get(number, Marked())
        for tally in (units[number], *(by_bucket[ACROSS] for by_bucket in groups.values())):
            _add(tally, marked, found)


def _count_duplicates(corpus: Corpus, whose: str, notices: Counter[str]) -> None:
    for sentence in corpus.sentences:
        repeated = {
            "entities": len(sentence.entities) - len(set(sentence.entities)),
            "relations": len(sentence.relations) - len(set(sentence.relations)),
        }
        for what, times in repeated.items():
            if times:
                notices[f"{whose} {what} given more than once: counted once"] += times


def _collect(
    gold: Corpus,
    units: list[Tally],
    groups: dict[str, dict[str, Tally]],
    sizes: dict[str, Counter[str]],
    symmetric: tuple[str, ...],
    with_direction: Scores | None,
    notices: Counter[str],
) -> Scores:
    unit_counts = _unit_counts(units)
    sums = unit_counts.counts_UN3.sum(axis=0, dtype=np.int64)
    totals = {name: Counts(*map(int, row)) for name, row in zip(unit_counts.names, sums, strict=True)}
    types: dict[str, dict[str, Counts]] = {metric: {} for metric in METRICS}
    for (metric, kind), counts in totals.items():
        if kind is not None:
            types[metric][kind] = counts
    return Scores(
        entity=totals["entity", None],
        relation=totals["relation", None],
        ent_rel=totals["ent_rel", None],
        entity_by_type=types["entity"],
        relation_by_type=types["relation"],
        ent_rel_by_type=types["ent_rel"],
        by_entities=_groups(groups["entities"], sizes["entities"], _ENTITY_NAMES),
        by_length=_groups(groups["length"], sizes["length"], _LENGTH_NAMES),
        sentences=gold.n_sentences,
        documents=len(gold.documents),
        symmetric=symmetric,
        with_direction=with_direction,
        notices=dict(notices),
        units=unit_counts,
    )


def _unit_counts(units: list[Tally]) -> UnitCounts:
    """Columns: each metric's sum over types first, then its types in order."""
    found = {name for tally in units for name in tally}
    names: list[Name] = []
    for metric in METRICS:
        names += [
            (metric, None),
            *((metric, kind) for kind in sorted(k for m, k in found if m == metric and k is not None)),
        ]
    column = {name: i for i, name in enumerate(names)}
    entries = [
        (unit, column[place], *counts)
        for unit, tally in enumerate(units)
        for (metric, kind), counts in tally.items()
        for place in ((metric, kind), (metric, None))
    ]
    entries_E5 = np.array(entries, np.int32).reshape(-1, 5)  # unit, column, tp, predicted, gold
    counts_UN3 = np.zeros((len(units), len(names), 3), np.int32)
    np.add.at(counts_UN3, (entries_E5[:, 0], entries_E5[:, 1]), entries_E5[:, 2:])
    return UnitCounts(tuple(names), counts_UN3)


_ENTITY_NAMES = (*(str(n) for n in range(MOST_ENTITIES)), f"{MOST_ENTITIES}+", ACROSS)
_LENGTH_NAMES = (*(f"{low}-{high}" for low, high in LENGTH_BUCKETS), f"{LENGTH_BUCKETS[-1][1] + 1}+", ACROSS)


def _entities_bucket(entities: int) -> str:
    return _ENTITY_NAMES[min(entities, MOST_ENTITIES)]


def _length_bucket(words: int) -> str:
    return next((f"{low}-{high}" for low, high in LENGTH_BUCKETS if words <= high), _LENGTH_NAMES[-2])


def _groups(tallies: Mapping[str, Tally], sizes: Counter[str], names: Iterable[str]) -> dict[str, Group]:
    """In the order of `names`; those without a sentence or anything across sentences are left out."""
    return {
        name: Group(sizes[name], **{metric: _sum(tallies[name], metric) for metric in METRICS})
        for name in names
        if name in tallies
    }


def _sum(tally: Tally, metric: str) -> Counts:
    return sum((Counts(*counts) for (name, _), counts in tally.items() if name == metric), Counts())
