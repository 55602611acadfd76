"""How much of a corpus's gold the model can find at all: the highest recall, and what lowers it.

The model marks flat entities without gaps inside one sentence, gives each span one type and each pair of spans one
relation and direction (METHOD.md, Fine-tuning). Other gold stays in the denominators of the scores, so recall has a
ceiling, computed exactly for each metric by itself: the most keys of the gold (see `matching`) that one prediction of
this form can hold.

For relations that is a choice: of spans that overlap only one can be predicted, and with it the relations it takes part
in. The best choice is searched; that it is the best one is certain but for sentences that need more than MOST_STEPS
steps, whose figure is an upper bound. None of SciERC and CoNLL04 does.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from spe_dist.extraction.corpora.corpus import UNPLACED, Corpus, Labels, Span
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
UNTYPED_ARGUMENT = "with an argument that is no entity"
FURTHER = "further types or directions on a pair"
CONTESTED = "with an argument that overlaps that of another relation"
REASONS = (
    *(ACROSS, NOT_THERE, NOT_LEARNED, GAPS, SAME_WORDS, NESTED),
    *(GAPS_IN_ARGUMENT, BETWEEN_OVERLAPPING, UNTYPED_ARGUMENT, FURTHER, CONTESTED),
)
NOUNS = {"entity": "entities", "relation": "relations", "ent_rel": "relations with their entities' types"}
MOST_VISITS = 200_000  # of pairs, in the search for the best choice in a part of a sentence

Node = tuple[Any, str]  # boundaries and, in Ent+Rel, the type
Pair = tuple[Node, Node]


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


def gold_ceiling(corpus: Corpus, symmetric: Collection[str] = (), labels: Labels | None = None) -> Ceiling:
    """The ceiling of a corpus.

    Args:
        symmetric: relation types whose two directions are one relation.
        labels: the types that a model knows; None: all types of the corpus.
    """
    tally = CeilingTally(labels)
    for document in corpus.documents:
        for sentence in document.sentences:
            tally.add(mark_gold(sentence, symmetric))
        if document.cross_entities or document.cross_relations:
            tally.add_across(mark(document.cross_entities, document.cross_relations, symmetric))
    return tally.ceiling()


def ceiling_lines(ceiling: Ceiling, only: Collection[str] = REASONS) -> list[str]:
    """What cannot be found, in words: a line for each metric that loses something, and those of `lost_type_lines`.

    Args:
        only: the reasons that matter here.
    """
    lines = []
    for metric in METRICS:
        reach = ceiling.of(metric)
        lost = {reason: number for reason, number in reach.lost.items() if reason in only}
        if lost and not (metric == "ent_rel" and reach == ceiling.relation):
            n_lost = sum(lost.values())
            lines.append(
                f"{n_lost:,} of {reach.gold:,} {NOUNS[metric]} cannot be found (recall "
                f"{100 * (1 - n_lost / reach.gold):.1f}% at most): {', '.join(counted(lost))}"
            )
    return [*lines, *lost_type_lines(ceiling)]


def lost_type_lines(ceiling: Ceiling) -> list[str]:
    """The types of which nothing can be found, in words, with how often they are marked."""
    return [
        f"{metric} types of which nothing can be found: {', '.join(counted(dict(sorted(types.items()))))}"
        for metric in ("entity", "relation")
        if (types := ceiling.of(metric).lost_types)
    ]


class CeilingTally:
    """Counts what cannot be found, filled from keys of the gold."""

    def __init__(self, labels: Labels | None = None) -> None:
        self.entity_types = None if labels is None else {*labels.entity_types, ""}
        self.relation_types = None if labels is None else set(labels.relation_types)
        self.gold: Counter[str] = Counter()
        self.lost: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.types: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.possible_types: defaultdict[str, set[str]] = defaultdict(set)

    def add(self, gold: Marked) -> None:
        """Count the keys of a sentence."""
        self._entities(self._possible("entity", gold, self._entity_reason))
        for metric in ("relation", "ent_rel"):
            self._relations(metric, self._possible(metric, gold, self._relation_reason))

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

    def _relation_reason(self, key: Key) -> str | None:
        if key[1] == UNPLACED:
            return NOT_THERE
        (head, head_type), (tail, tail_type) = _nodes(key)
        types = {head_type, tail_type}
        if self.relation_types is not None and key[0] not in self.relation_types:
            return NOT_LEARNED
        if head[2] or tail[2]:
            return GAPS_IN_ARGUMENT
        if _overlap(head, tail):
            return BETWEEN_OVERLAPPING
        if _is_typed(key) and "" in types:
            return UNTYPED_ARGUMENT
        return NOT_LEARNED if self.entity_types is not None and not types <= self.entity_types else None

    def _entities(self, keys: list[Key]) -> None:
        spans = {key[1][:2] for key in keys}
        self.lost["entity"][SAME_WORDS] += len(keys) - len(spans)
        self.lost["entity"][NESTED] += len(spans) - most_flat(spans)

    def _relations(self, metric: str, keys: list[Key]) -> None:
        pairs = {(min(nodes), max(nodes)) for nodes in map(_nodes, keys)}
        self.lost[metric][FURTHER] += len(keys) - len(pairs)
        self.lost[metric][CONTESTED] += len(pairs) - most_pairs(pairs)


def _is_typed(key: Key) -> bool:
    """Whether it is a key of Ent+Rel."""
    return isinstance(key[1][0], tuple)


def _nodes(key: Key) -> Pair:
    """The arguments of a relation's key; without types in the metric that asks for none."""
    return (key[1], key[2]) if _is_typed(key) else ((key[1], ""), (key[2], ""))


def _overlap(first: Any, second: Any) -> bool:
    return first[0] < second[1] and second[0] < first[1]


def most_flat(spans: Iterable[Span]) -> int:
    """The largest number of spans without common words: always the one that ends first."""
    chosen, last_end = 0, 0
    for start, end in sorted(set(spans), key=lambda span: span[1]):
        if start >= last_end:
            chosen, last_end = chosen + 1, end
    return chosen


def most_pairs(pairs: Collection[Pair], most_visits: int = MOST_VISITS) -> int:
    """The largest number of pairs whose nodes do not conflict; nodes do where their spans overlap.

    An upper bound where the search visits pairs more than `most_visits` times in one of its parts.
    """
    conflicts = _conflicts(sorted({node for pair in pairs for node in pair}))
    if not conflicts:
        return len(pairs)
    return sum(_best_choice(part, conflicts, most_visits) for part in _parts(pairs, conflicts))


def _conflicts(nodes: list[Node]) -> dict[Node, set[Node]]:
    """The nodes, in order of their starts, that overlap others, with these."""
    found: defaultdict[Node, set[Node]] = defaultdict(set)
    open_nodes: list[Node] = []
    for node in nodes:
        open_nodes = [other for other in open_nodes if other[0][1] > node[0][0]]
        for other in open_nodes:
            found[node].add(other)
            found[other].add(node)
        open_nodes.append(node)
    return found


def _parts(pairs: Collection[Pair], conflicts: Mapping[Node, set[Node]]) -> Iterator[frozenset[Pair]]:
    """The pairs, in parts that have nothing to do with each other."""
    pairs_of: defaultdict[Node, list[Pair]] = defaultdict(list)
    for pair in pairs:
        for node in pair:
            pairs_of[node].append(pair)
    unseen = set(pairs_of)
    while unseen:
        part: set[Pair] = set()
        waiting = [unseen.pop()]
        while waiting:
            node = waiting.pop()
            part.update(pairs_of[node])
            near = {other for pair in pairs_of[node] for other in pair} | conflicts.get(node, set())
            waiting += near & unseen
            unseen -= near
        yield frozenset(part)


def _best_choice(pairs: frozenset[Pair], conflicts: Mapping[Node, set[Node]], most_visits: int) -> int:
    """Best first by the pairs that are left: the first state without a conflict is the best of all.

    A state goes on without its most contested node, or without all that conflict with this.
    """
    numbers = count()
    queue = [(-len(pairs), 0, next(numbers), pairs)]
    while True:
        bound, depth, step, left = heapq.heappop(queue)
        nodes = {node for pair in left for node in pair}
        contested = [(len(conflicts[node] & nodes), node) for node in nodes if node in conflicts]
        most, node = max(contested, default=(0, None))
        if not most or step * len(pairs) > most_visits:
            return -bound
        assert node is not None
        for removed in ({node}, conflicts[node] & nodes):
            rest = frozenset(pair for pair in left if not removed & set(pair))
            heapq.heappush(queue, (-len(rest), depth - 1, next(numbers), rest))
