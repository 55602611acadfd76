"""How much of a corpus's gold the model can find at all: the highest recall, and what lowers it.

The model marks flat entities without gaps inside one sentence, gives each span one type and each pair of spans one
relation and direction (METHOD.md, Fine-tuning). Other gold stays in the denominators of the scores, so recall has a
ceiling, computed exactly for each metric by itself: the most keys of the gold (see `matching`) that one prediction of
this form can hold.

For relations that is a choice: of spans that overlap only one can be predicted, and with it the relations it takes part
in. The best choice is searched; that it is the best one is certain but for sentences that need more than
`flat_choice.MOST_VISITS` visits, whose figure is an upper bound. None of SciERC and CoNLL04 does.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from spe_dist.extraction.corpora.corpus import UNPLACED, Corpus, Labels
from spe_dist.extraction.scoring.flat_choice import Pair, most_flat, most_pairs, overlap, same_span
from spe_dist.extraction.scoring.matching import METRICS, Key, Marked, mark, mark_gold
from spe_dist.utils.wording import counted

ACROSS = "across sentences"
NOT_THERE = "with words that are not in the sentence"
NOT_LEARNED = "of types that no training sentence has"
GAPS = "with words between their parts"
SAME_WORDS = "further types on the same words"
NESTED = "overlapping others"
GAPS_IN_ARGUMENT = "of a discontinuous entity"
BETWEEN_OVERLAPPING = "between entities that overlap"
UNTYPED_ARGUMENT = "with an argument that is not an entity"
FURTHER = "further types or directions on a pair"
CONTESTED = "with an argument that overlaps that of another relation"
REASONS = (
    *(ACROSS, NOT_THERE, NOT_LEARNED, GAPS, SAME_WORDS, NESTED),
    *(GAPS_IN_ARGUMENT, BETWEEN_OVERLAPPING, UNTYPED_ARGUMENT, FURTHER, CONTESTED),
)
NOUNS = {"entity": "entities", "relation": "relations", "ent_rel": "relations with their entities' types"}


@dataclass(frozen=True)
class Reach:
    """What can be found of the gold of one metric.

    Attributes:
        gold: distinct marks, as scores count them.
        lost: those that no prediction can hold, by reason in the order of REASONS; each counts once.
        lost_types: types of which nothing can be found, with how often each is marked.
    """

    gold: int = 0
    lost: Mapping[str, int] = field(default_factory=dict)
    lost_types: Mapping[str, int] = field(default_factory=dict)

    @property
    def n_lost(self) -> int:
        return sum(self.lost.values())

    @property
    def recall(self) -> float:
        """The highest possible one, a fraction of 1; 1 where there is no gold."""
        return 1 - self.n_lost / self.gold if self.gold else 1.0

    def to_json(self) -> dict[str, Any]:
        return {"recall": self.recall, "gold": self.gold, "lost": dict(self.lost), "lost_types": dict(self.lost_types)}


@dataclass(frozen=True)
class Ceiling:
    """The highest recall by metric; each for itself, one prediction need not reach all three."""

    entity: Reach = field(default_factory=Reach)
    relation: Reach = field(default_factory=Reach)
    ent_rel: Reach = field(default_factory=Reach)

    def of(self, metric: str) -> Reach:
        return getattr(self, metric)

    @property
    def is_complete(self) -> bool:
        """Whether all of the gold can be found."""
        return not any(self.of(metric).n_lost for metric in METRICS)

    def to_json(self) -> dict[str, Any]:
        return {metric: self.of(metric).to_json() for metric in METRICS}


def gold_ceiling(
    corpus: Corpus, symmetric: Collection[str] = (), labels: Labels | None = None, given_entities: bool = False
) -> Ceiling:
    """The ceiling of a corpus.

    Args:
        symmetric: relation types whose two directions are one relation.
        labels: the types that a model knows; None: all types of the corpus.
        given_entities: the model is given the entities, of any types, and finds relations between them.
    """
    tally = CeilingTally(labels, given_entities)
    for document in corpus.documents:
        for sentence in document.sentences:
            tally.add(mark_gold(sentence, symmetric))
        if document.cross_entities or document.cross_relations:
            tally.add_across(mark(document.cross_entities, document.cross_relations, symmetric))
    return tally.ceiling()


def ceiling_lines(ceiling: Ceiling, of_training: bool = False) -> list[str]:
    """What cannot be found, in words: a line for each metric that loses something, and those of `lost_type_lines`.

    Args:
        of_training: what no example holds, in place of that; of the rest each example says what of it is not trained.
    """
    lines = []
    for metric in METRICS[:2] if of_training else METRICS:
        reach = ceiling.of(metric)
        lost = {reason: n for reason, n in reach.lost.items() if not of_training or reason in (ACROSS, NOT_THERE)}
        if lost and not (metric == "ent_rel" and reach == ceiling.relation):
            n_lost = sum(lost.values())
            recall = f"{100 * (1 - n_lost / reach.gold):.1f}%"
            what = "are not trained" if of_training else f"cannot be found (recall {recall} at most)"
            lines.append(f"{n_lost:,} of {reach.gold:,} {NOUNS[metric]} {what}: {', '.join(counted(lost))}")
    return [*lines, *lost_type_lines(ceiling, of_training)]


def lost_type_lines(ceiling: Ceiling, of_training: bool = False) -> list[str]:
    """The types of which nothing can be found, or trained, in words, with how often they are marked."""
    what = "that are never trained" if of_training else "of which nothing can be found"
    return [
        f"{metric} types {what}: {', '.join(counted(dict(sorted(types.items()))))}"
        for metric in METRICS[:2]
        if (types := ceiling.of(metric).lost_types)
    ]


class CeilingTally:
    """Counts what cannot be found, filled from keys of the gold."""

    def __init__(self, labels: Labels | None = None, given_entities: bool = False) -> None:
        self.given_entities = given_entities
        self.entity_types = None if labels is None or given_entities else {*labels.entity_types, ""}
        self.relation_types = None if labels is None else set(labels.relation_types)
        self.gold: Counter[str] = Counter()
        self.lost: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.types: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.possible_types: defaultdict[str, set[str]] = defaultdict(set)

    def add(self, gold: Marked) -> None:
        """Count the keys of a sentence."""
        if self.given_entities:
            self._possible("entity", gold, lambda _: None)
        else:
            self._entities(self._possible("entity", gold, self._entity_reason))
        given = {key[1] for key in gold.entity} if self.given_entities else None
        for metric in ("relation", "ent_rel"):
            self._relations(metric, self._possible(metric, gold, lambda key: self._relation_reason(key, given)))

    def add_across(self, gold: Marked) -> None:
        """Count the keys of what lies across the sentences of a document: none of it can be found."""
        for metric in METRICS:
            assert not self._possible(metric, gold, lambda _: ACROSS)

    def ceiling(self) -> Ceiling:
        """Of all that was added."""
        return Ceiling(*map(self._reach, METRICS))

    def _reach(self, metric: str) -> Reach:
        lost, possible = self.lost[metric], self.possible_types[metric]
        types = {name: number for name, number in self.types[metric].items() if name not in possible}
        return Reach(self.gold[metric], {reason: lost[reason] for reason in REASONS if lost[reason]}, types)

    def _possible(self, metric: str, gold: Marked, reason_of: Callable[[Key], str | None]) -> list[Key]:
        """The keys that could be found if they stood alone."""
        keys = gold.keys(metric)
        self.gold[metric] += len(keys)
        self.types[metric].update(key[0] for key in keys)
        possible = []
        for key in keys:
            reason = reason_of(key)
            if reason is None:
                possible.append(key)
            else:
                self.lost[metric][reason] += 1
        self.possible_types[metric].update(key[0] for key in possible)
        return possible

    def _entity_reason(self, key: Key) -> str | None:
        if key[1] == UNPLACED:
            return NOT_THERE
        if self.entity_types is not None and key[0] not in self.entity_types:
            return NOT_LEARNED
        return GAPS if key[1][2] else None

    def _relation_reason(self, key: Key, given: Collection[Any] | None) -> str | None:
        if key[1] == UNPLACED:
            return NOT_THERE
        (head, head_type), (tail, tail_type) = _nodes(key)
        types = {head_type, tail_type}
        if self.relation_types is not None and key[0] not in self.relation_types:
            return NOT_LEARNED
        if head[2] or tail[2]:
            return GAPS_IN_ARGUMENT
        if overlap((head, ""), (tail, "")):
            return BETWEEN_OVERLAPPING
        if (_is_typed(key) and "" in types) or (given is not None and not {head, tail} <= set(given)):
            return UNTYPED_ARGUMENT
        return NOT_LEARNED if self.entity_types is not None and not types <= self.entity_types else None

    def _entities(self, keys: list[Key]) -> None:
        spans = {key[1][:2] for key in keys}
        self.lost["entity"][SAME_WORDS] += len(keys) - len(spans)
        self.lost["entity"][NESTED] += len(spans) - most_flat(spans)

    def _relations(self, metric: str, keys: list[Key]) -> None:
        pairs = {(min(nodes), max(nodes)) for nodes in map(_nodes, keys)}
        self.lost[metric][FURTHER] += len(keys) - len(pairs)
        conflict = same_span if self.given_entities else overlap
        self.lost[metric][CONTESTED] += len(pairs) - most_pairs(pairs, conflict)


def _is_typed(key: Key) -> bool:
    """Whether it is a key of Ent+Rel."""
    return isinstance(key[1][0], tuple)


def _nodes(key: Key) -> Pair:
    """The arguments of a relation's key; without types in the metric that asks for none."""
    return (key[1], key[2]) if _is_typed(key) else ((key[1], ""), (key[2], ""))
