from collections import Counter, defaultdict

import numpy as np
import pytest

from spe_dist.data.shards.blocks import Block
from spe_dist.pretraining.count_model import MAX_OFFSET, CountModel, sampled_blocks

VOCABULARY = 12


def random_blocks(blocks=5, sentences=40, seed=0):
    """Blocks of words of 1 to 4 pieces, skewed so that contexts repeat; and their words as lists of pieces."""
    rng = np.random.default_rng(seed)
    made, words = [], []
    for _ in range(blocks):
        piece_ids, first_pieces, piece_offsets, word_offsets = [], [], [0], [0]
        for _ in range(sentences):
            start = len(piece_ids)
            for _ in range(rng.integers(3, 7)):
                word = (rng.random(rng.integers(1, 5)) ** 2 * VOCABULARY).astype(int).tolist()
                first_pieces.append(len(piece_ids) - start)
                piece_ids += word
                words.append(word)
            piece_offsets.append(len(piece_ids))
            word_offsets.append(len(first_pieces))
        made.append(
            Block(
                0,
                np.array(piece_ids, dtype=np.uint16),
                np.array(piece_offsets, dtype=np.int32),
                np.array(first_pieces, dtype=np.uint8),
                np.array(word_offsets, dtype=np.int32),
            )
        )
    return made, words


def slow_probability(words):
    """The formula of the module, with dictionaries; p(piece | first, offset)."""
    full = defaultdict(Counter)
    for word in words:
        for offset, piece in enumerate(word[1:], start=1):
            full[word[0], offset][piece] += 1
    by_offset = defaultdict(Counter)
    for (_, offset), counts in full.items():
        for piece in counts:
            by_offset[offset][piece] += 1
    alone = {None: Counter(piece for counts in by_offset.values() for piece in counts)}

    def level(table, context, piece, lower):
        every = [c for counts in table.values() for c in counts.values()]
        discount = every.count(1) / (every.count(1) + 2 * every.count(2)) if every.count(1) else 0.5
        discount = min(discount, 0.99)
        counts = table.get(context)
        if not counts:
            return lower
        return (max(counts[piece] - discount, 0) + discount * len(counts) * lower) / sum(counts.values())

    def probability(first, offset, piece):
        p = level(alone, None, piece, 1 / VOCABULARY)
        p = level(by_offset, offset, piece, p)
        return level(full, (first, offset), piece, p)

    return probability


def test_probabilities_are_those_of_the_formula_and_sum_to_one():
    blocks, words = random_blocks()
    model, probability = CountModel.estimate(blocks, VOCABULARY), slow_probability(words)
    pieces = np.arange(VOCABULARY)
    for first in range(VOCABULARY):
        for offset in range(1, 6):  # 5 was never seen
            fast = np.exp(-model.nats(np.full(VOCABULARY, first), np.full(VOCABULARY, offset), pieces))
            slow = [probability(first, offset, piece) for piece in range(VOCABULARY)]
            assert fast == pytest.approx(slow, abs=1e-12)
            assert fast.sum() == pytest.approx(1.0) and fast.min() > 0
    assert model.pieces_counted == sum(len(word) - 1 for word in words)
    assert np.exp(-model.unigram_nats(pieces)).sum() == pytest.approx(1.0)


def test_counts_do_not_depend_on_how_blocks_are_merged(monkeypatch):
    blocks, _ = random_blocks()
    first, offset, piece = np.arange(12) % 12, 1 + np.arange(12) % 4, np.arange(12)
    together = CountModel.estimate(blocks, VOCABULARY).nats(first, offset, piece)
    monkeypatch.setattr("spe_dist.pretraining.count_model.MERGE_BLOCKS", 2)
    assert np.array_equal(CountModel.estimate(blocks, VOCABULARY).nats(first, offset, piece), together)


def test_counts_tell_more_than_unigrams_on_words_that_repeat():
    train, _ = random_blocks(seed=1)
    model = CountModel.estimate(train, VOCABULARY)
    word = np.array([3, 7])
    block = Block(0, np.tile(word, 200), np.array([0, 400]), np.arange(0, 400, 2), np.array([0, 200]))
    model = CountModel.estimate([*train, block], VOCABULARY)
    assert model.nats(word[:1], np.array([1]), word[1:])[0] < model.unigram_nats(word[1:])[0] - 0.5


def test_without_any_counts_every_piece_is_as_likely_and_far_offsets_are_clamped():
    model = CountModel.estimate([], VOCABULARY)
    assert model.nats(np.array([1]), np.array([2]), np.array([3]))[0] == pytest.approx(np.log(VOCABULARY))
    blocks, _ = random_blocks()
    model = CountModel.estimate(blocks, VOCABULARY)
    far, clamped = (model.nats(np.array([1]), np.array([o]), np.array([3])) for o in (10_000, MAX_OFFSET))
    assert np.array_equal(far, clamped)


class Distant:
    """A store that notes what is asked for, in order."""

    def __init__(self, blocks, lookahead=512, ranges=True):
        self.block_sentences = np.full(blocks, 10)
        self.lookahead_sentences = lookahead
        self.has_ranges = lambda: ranges
        self.prefetched, self.late = set(), []

    def prefetch(self, blocks):
        self.prefetched |= set(blocks)

    def block(self, index):
        if index not in self.prefetched:
            self.late.append(index)
        return index


def test_blocks_are_sampled_over_the_whole_corpus_where_not_all_are_read():
    assert list(sampled_blocks(Distant(3), 5)) == [0, 1, 2]
    assert list(sampled_blocks(Distant(10), 4)) == [0, 2, 5, 7]


def test_distant_blocks_are_on_their_way_before_they_are_counted_and_whole_shards_are_few():
    store = Distant(1_000)
    assert len(list(sampled_blocks(store, 200))) == 200 and store.late == []
    assert list(sampled_blocks(Distant(1_000, ranges=False), 200)) == list(range(200))
    local = Distant(1_000, lookahead=0, ranges=False)
    assert list(sampled_blocks(local, 200)) == list(range(0, 1_000, 5)) and not local.prefetched
