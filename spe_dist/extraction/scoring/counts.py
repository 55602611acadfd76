"""Counts of right, predicted and gold items: by metric and type, by groups of sentences, by the units of resampling."""

# U units, N names (metric and type)

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from spe_dist.errors import DataError
from spe_dist.extraction.scoring.matching import METRICS, Marked
from spe_dist.utils.reading.json_file import is_whole, shown

ACROSS = "across sentences"
MAX_COUNT = 2**31 - 1
MOST_ENTITIES = 9
LENGTH_BUCKETS = ((0, 10), (11, 20), (21, 30), (31, 50))  # words, both ends inclusive; longer ones follow

ENTITY_GROUPS = (*(str(n) for n in range(MOST_ENTITIES)), f"{MOST_ENTITIES}+", ACROSS)
LENGTH_GROUPS = (*(f"{low}-{high}" for low, high in LENGTH_BUCKETS), f"{LENGTH_BUCKETS[-1][1] + 1}+", ACROSS)

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
    """Counts of each unit that a resampling draws.

    Units are documents; or sentences, where the format has no documents or there is one document alone. What lies
    across the sentences of one document alone is one more unit.
    counts_UN3[u, n] holds tp, predicted and gold of unit u for names[n].
    """

    names: tuple[Name, ...]
    counts_UN3: np.ndarray
    description: str  # "12 documents"

    def to_json(self) -> dict[str, Any]:
        """The sums over types alone: [[tp, predicted, gold], ...] by metric. `from_json` reads them."""
        sums = {metric: self.counts_UN3[:, self.names.index((metric, None))].tolist() for metric in METRICS}
        return {"units": self.description, **sums}

    @classmethod
    def from_json(cls, content: object, where: str) -> UnitCounts:
        """Raises DataError, which begins with `where`, for what is no `to_json`."""
        content = content if isinstance(content, dict) else {}
        columns = [column for metric in METRICS if isinstance(column := content.get(metric), list)]
        if len(columns) < len(METRICS) or len(set(map(len, columns))) > 1:
            raise DataError(f"{where}: no counts by document or sentence")
        for counts in (counts for column in columns for counts in column):
            if not (isinstance(counts, list) and len(counts) == 3 and all(is_whole(n, 0, MAX_COUNT) for n in counts)):
                raise DataError(f"{where}: {shown(counts)} is not [right, predicted, gold]")
        counts_UN3 = np.array(columns, np.int32).reshape(len(METRICS), -1, 3).swapaxes(0, 1)
        return cls(tuple((metric, None) for metric in METRICS), counts_UN3, str(content.get("units")))


class Tally:
    """Counts by metric and type, filled from sets of keys."""

    def __init__(self) -> None:
        self.counts: defaultdict[Name, list[int]] = defaultdict(lambda: [0, 0, 0])  # tp, predicted, gold

    def add(self, gold: Marked, predicted: Marked) -> None:
        """Count both by their types, which are the first part of each key."""
        for metric in METRICS:
            ours, theirs = gold.keys(metric), predicted.keys(metric)
            for part, keys in enumerate((ours & theirs, theirs, ours)):
                for key in keys:
                    self.counts[metric, key[0]][part] += 1

    def total(self, metric: str) -> Counts:
        return sum((Counts(*counts) for (name, _), counts in self.counts.items() if name == metric), Counts())


class GroupTally:
    """Counts of groups of sentences."""

    def __init__(self) -> None:
        self.sentences: Counter[str] = Counter()
        self.tallies: defaultdict[str, Tally] = defaultdict(Tally)

    def add(self, name: str, gold: Marked, predicted: Marked) -> None:
        if name != ACROSS:
            self.sentences[name] += 1
        self.tallies[name].add(gold, predicted)

    def groups(self, names: Iterable[str]) -> dict[str, Group]:
        """In the order of `names`; those that hold nothing are left out."""
        return {
            name: Group(self.sentences[name], *(self.tallies[name].total(metric) for metric in METRICS))
            for name in names
            if name in self.tallies
        }


def entities_group(entities: int) -> str:
    """The group of sentences with so many entities."""
    return ENTITY_GROUPS[min(entities, MOST_ENTITIES)]


def length_group(words: int) -> str:
    """The group of sentences with so many words."""
    return next((f"{low}-{high}" for low, high in LENGTH_BUCKETS if words <= high), LENGTH_GROUPS[-2])


def unit_counts(units: list[Tally], description: str) -> UnitCounts:
    """Columns: each metric's sum over types first, then its types in order."""
    found = {name for tally in units for name in tally.counts}
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
        for (metric, kind), counts in tally.counts.items()
        for place in ((metric, kind), (metric, None))
    ]
    entries_E5 = np.array(entries, np.int32).reshape(-1, 5)  # unit, column, tp, predicted, gold
    counts_UN3 = np.zeros((len(units), len(names), 3), np.int32)
    np.add.at(counts_UN3, (entries_E5[:, 0], entries_E5[:, 1]), entries_E5[:, 2:])
    return UnitCounts(tuple(names), counts_UN3, description)
