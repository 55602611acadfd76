"""The largest number of spans, and of pairs of spans, that one prediction without overlaps can hold."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import count
from typing import Any

from spe_dist.extraction.corpora.corpus import Span

MOST_VISITS = 200_000  # of pairs, in the search for the best choice in a part of a sentence

Node = tuple[Any, str]  # boundaries (start, end, parts) and, where types matter, the type
Pair = tuple[Node, Node]


def overlap(first: Node, second: Node) -> bool:
    """Whether two nodes have a word in common, so that one prediction cannot hold both."""
    return first[0][0] < second[0][1] and second[0][0] < first[0][1]


def same_span(first: Node, second: Node) -> bool:
    """Whether two nodes are one span with two types."""
    return first[0] == second[0]


def most_flat(spans: Iterable[Span]) -> int:
    """The largest number of spans without common words: always the one that ends first."""
    chosen, last_end = 0, 0
    for start, end in sorted(set(spans), key=lambda span: span[1]):
        if start >= last_end:
            chosen, last_end = chosen + 1, end
    return chosen


def most_pairs(
    pairs: Collection[Pair], conflict: Callable[[Node, Node], bool] = overlap, most_visits: int = MOST_VISITS
) -> int:
    """The largest number of pairs no two of whose nodes conflict. `conflict`: of nodes that overlap, which do.

    An upper bound where the search visits pairs more than `most_visits` times in one of its parts.
    """
    conflicts = _conflicts(sorted({node for pair in pairs for node in pair}), conflict)
    if not conflicts:
        return len(pairs)
    return sum(_best_choice(part, conflicts, most_visits) for part in _parts(pairs, conflicts))


def _conflicts(nodes: list[Node], conflict: Callable[[Node, Node], bool]) -> dict[Node, set[Node]]:
    """The nodes, in order of their starts, that conflict with others, with these."""
    found: defaultdict[Node, set[Node]] = defaultdict(set)
    open_nodes: list[Node] = []
    for node in nodes:
        open_nodes = [other for other in open_nodes if other[0][1] > node[0][0]]
        for other in filter(lambda other: conflict(node, other), open_nodes):
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
