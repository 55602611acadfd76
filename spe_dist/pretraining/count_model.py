"""The yardstick of the token boundary objective: how well counts alone predict a masked piece (METHOD, Held-out).

A smoothed p(piece x | first piece f of its word, offset o inside the word), estimated from the continuation pieces of
training sentences. Interpolated Kneser-Ney: each level takes a discount D from every count seen and gives what it
saved to the next shorter context,

    p(x | h) = (max(c(h, x) - D, 0) + D types(h) p(x | h')) / c(h)        contexts h: (f, o), then o, then none
    p(x | none)'s remainder goes to the uniform distribution 1 / V,

where c counts occurrences at (f, o), and below it the number of different contexts one level up in which x was seen;
types(h) is the number of different x seen after h, and D = n1 / (n1 + 2 n2) with n1, n2 the numbers of counts 1 and 2.

Legend of the shape suffixes:
    M pieces to predict, E different (context, piece) pairs, H different contexts
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from spe_dist.data.batches.stream import Store
from spe_dist.data.shards.blocks import Block

MAX_OFFSET = 31  # larger offsets count as this one
MERGE_BLOCKS = 64  # blocks counted before their counts are merged
FETCHED_AHEAD = 32  # blocks


@dataclass(frozen=True)
class _Level:
    """Discounted counts of pieces after contexts; keys are context * V + piece."""

    keys_E: np.ndarray  # int64, sorted
    counts_E: np.ndarray
    contexts_H: np.ndarray  # int64, sorted
    totals_H: np.ndarray
    types_H: np.ndarray
    discount: float

    @classmethod
    def of(cls, keys_E: np.ndarray, counts_E: np.ndarray, vocabulary_size: int) -> _Level:
        contexts_H, starts_H, types_H = np.unique(keys_E // vocabulary_size, return_index=True, return_counts=True)
        totals_H = np.add.reduceat(counts_E, starts_H) if len(counts_E) else counts_E
        ones, twos = int((counts_E == 1).sum()), int((counts_E == 2).sum())
        discount = ones / (ones + 2 * twos) if ones else 0.5
        return cls(keys_E, counts_E, contexts_H, totals_H, types_H, min(discount, 0.99))

    def interpolate(self, contexts_M: np.ndarray, pieces_M: np.ndarray, lower_M: np.ndarray, size: int) -> np.ndarray:
        """p(x | h) from p(x | h'); contexts never seen keep the latter."""
        counts_M = _lookup(self.keys_E, self.counts_E, contexts_M * size + pieces_M)
        totals_M = _lookup(self.contexts_H, self.totals_H, contexts_M)
        types_M = _lookup(self.contexts_H, self.types_H, contexts_M)
        seen_M = np.maximum(counts_M - self.discount, 0.0) + self.discount * types_M * lower_M
        return np.where(totals_M > 0, seen_M / np.maximum(totals_M, 1), lower_M)


class CountModel:
    """p(piece | first piece, offset) by counting; all probabilities are over 0 and sum to 1 over the vocabulary."""

    def __init__(self, keys_E: np.ndarray, counts_E: np.ndarray, vocabulary_size: int) -> None:
        """`keys_E`: sorted different (first piece * (MAX_OFFSET + 1) + offset) * V + piece; `counts_E`: how often."""
        self.vocabulary_size = vocabulary_size
        self.pieces_counted = int(counts_E.sum())
        full = _Level.of(keys_E, counts_E, vocabulary_size)
        pieces_E = keys_E % vocabulary_size
        offsets_E = keys_E // vocabulary_size % (MAX_OFFSET + 1)
        by_offset = _Level.of(*np.unique(offsets_E * vocabulary_size + pieces_E, return_counts=True), vocabulary_size)
        alone = _Level.of(*np.unique(by_offset.keys_E % vocabulary_size, return_counts=True), vocabulary_size)
        self._levels = (alone, by_offset, full)
        self._unigrams = np.bincount(pieces_E, weights=counts_E, minlength=vocabulary_size)

    @classmethod
    def estimate(cls, blocks: Iterable[Block], vocabulary_size: int) -> CountModel:
        """Count all continuation pieces of the blocks, read one by one."""
        merged = _merge([])
        waiting: list[tuple[np.ndarray, np.ndarray]] = []
        for block in blocks:
            waiting.append(np.unique(_continuations(block, vocabulary_size), return_counts=True))
            if len(waiting) == MERGE_BLOCKS:
                merged, waiting = _merge([merged, *waiting]), []
        return cls(*_merge([merged, *waiting]), vocabulary_size)

    def nats(self, first_pieces_M: np.ndarray, offsets_M: np.ndarray, pieces_M: np.ndarray) -> np.ndarray:
        """-log p(piece | first piece, offset) of each target, float64."""
        offsets_M = np.minimum(offsets_M.astype(np.int64), MAX_OFFSET)
        pieces_M = pieces_M.astype(np.int64)
        contexts = (0 * offsets_M, offsets_M, first_pieces_M.astype(np.int64) * (MAX_OFFSET + 1) + offsets_M)
        probability_M = np.full(len(pieces_M), 1.0 / self.vocabulary_size)
        for level, contexts_M in zip(self._levels, contexts, strict=True):
            probability_M = level.interpolate(contexts_M, pieces_M, probability_M, self.vocabulary_size)
        return -np.log(probability_M)

    def unigram_nats(self, pieces_M: np.ndarray) -> np.ndarray:
        """-log p(piece) of each target by the counts of continuation pieces alone, one added to each."""
        return -np.log((self._unigrams[pieces_M] + 1) / (self._unigrams.sum() + self.vocabulary_size))


def sampled_blocks(store: Store, limit: int) -> Iterator[Block]:
    """At most `limit` blocks of a store, evenly spaced; behind a URL some are on their way while others are counted.

    Where whole shards are fetched, they are those of the first shards: every block is a random sample of the corpus.
    """
    count = len(store.block_sentences)
    indices = list(range(count)) if count <= limit else [i * count // limit for i in range(limit)]
    is_distant = store.lookahead_sentences > 0
    if is_distant and not store.has_ranges():
        indices = list(range(len(indices)))
    for position, index in enumerate(indices):
        if is_distant and position % FETCHED_AHEAD == 0:
            store.prefetch(indices[position : position + 2 * FETCHED_AHEAD])
        yield store.block(index)


def _continuations(block: Block, vocabulary_size: int) -> np.ndarray:
    """The keys of all pieces of a block that are not the first of their word."""
    words_N = block.word_offsets_N1[1:].astype(np.int64) - block.word_offsets_N1[:-1]
    first_W = block.first_pieces_W.astype(np.int64) + np.repeat(block.piece_offsets_N1[:-1].astype(np.int64), words_N)
    pieces_T = block.piece_ids_T.astype(np.int64)
    first_T = np.repeat(first_W, np.append(first_W[1:], len(pieces_T)) - first_W)
    offset_T = np.arange(len(pieces_T)) - first_T
    context_T = pieces_T[first_T] * (MAX_OFFSET + 1) + np.minimum(offset_T, MAX_OFFSET)
    return (context_T * vocabulary_size + pieces_T)[offset_T > 0]


def _merge(counted: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Sorted different keys with their summed counts."""
    if not counted:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    keys = np.concatenate([keys for keys, _ in counted])
    counts = np.concatenate([counts for _, counts in counted])
    order = np.argsort(keys, kind="stable")
    keys, counts = keys[order], counts[order]
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    return keys[starts], np.add.reduceat(counts, starts) if len(starts) else counts


def _lookup(keys_E: np.ndarray, values_E: np.ndarray, wanted_M: np.ndarray) -> np.ndarray:
    """The value of each wanted key, 0 where it is absent."""
    if len(keys_E) == 0:
        return np.zeros(len(wanted_M))
    index_M = np.minimum(np.searchsorted(keys_E, wanted_M), len(keys_E) - 1)
    return np.where(keys_E[index_M] == wanted_M, values_E[index_M], 0)
