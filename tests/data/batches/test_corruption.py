"""Every distribution of the corruption against its formula; fixed seeds, so these tests pass always or never."""

from dataclasses import replace
from fractions import Fraction
from itertools import permutations
from math import ceil, comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spe_dist.config.pretraining import CorruptionConfig
from spe_dist.data.batches.corruption import (
    ORDERS,
    Corrupted,
    SentenceBatch,
    check_corruption,
    corrupt,
    draw_orders,
    draw_spans,
    permute_words,
    split_rest,
    take_words,
    tbo_budgets,
)
from spe_dist.data.shards.reader import SentenceReader
from spe_dist.errors import ConfigError, DataError
from spe_dist.utils import randomness
from spe_dist.utils.ragged import borders
from spe_dist.utils.randomness import Purpose

CONFIG = CorruptionConfig()
DRAWS = 60_000


def assert_counts_fit(counts: np.ndarray, probabilities: np.ndarray) -> None:
    """Chi-square within five standard deviations of its mean; what is impossible must not occur."""
    possible = probabilities > 0
    assert counts[~possible].sum() == 0
    expected = probabilities[possible] / probabilities[possible].sum() * counts.sum()
    statistic = ((counts[possible] - expected) ** 2 / expected).sum()
    freedom = possible.sum() - 1
    assert statistic < freedom + 5 * np.sqrt(2 * freedom) + 1


def some_keys(n: int = DRAWS) -> np.ndarray:
    return randomness.keys(11, 2, np.arange(n))


def spans_of(words: int, config: CorruptionConfig = CONFIG) -> np.ndarray:
    return draw_spans(np.full(DRAWS, words), some_keys(), config)


@pytest.mark.parametrize("words", [3, 4, 7, 12, 20, 21, 22, 90])
@pytest.mark.parametrize("config", [CONFIG, CorruptionConfig(span_width_p=0.5, max_span_words=3)])
def test_widths_are_geometric_given_that_something_is_left_over(words, config):
    widths = np.arange(1, config.max_span_words + 1)
    weight = config.span_width_p * (1 - config.span_width_p) ** (widths - 1.0)
    joint = np.where(np.add.outer(widths, widths) < words, np.outer(weight, weight), 0.0)
    counts = np.zeros_like(joint)
    spans = spans_of(words, config)
    np.add.at(counts, (spans[:, 1] - 1, spans[:, 3] - 1), 1)
    rare = joint / joint.sum() * DRAWS < 5  # chi-square needs some expected draws in every cell
    joined = np.append(counts[~rare], counts[rare].sum())
    assert_counts_fit(joined, np.append(joint[~rare], joint[rare].sum()))
    assert counts[joint == 0].sum() == 0


def test_mean_width_in_long_sentences_is_that_of_spanbert():
    spans = spans_of(100)
    assert abs(spans[:, [1, 3]].mean() - 3.797) < 0.03


@pytest.mark.parametrize("rest", [1, 2, 5, 9])
def test_lengths_of_the_other_spans_are_uniform_over_all_ways(rest):
    spans = spans_of(rest + 2, replace(CONFIG, max_span_words=1))
    assert (spans.sum(axis=1) == rest + 2).all() and (spans >= 0).all()
    _, counts = np.unique(spans, axis=0, return_counts=True)
    assert len(counts) == comb(rest + 2, 2)
    assert_counts_fit(counts, np.ones(len(counts)))


@pytest.mark.parametrize("rest", [0, 1, 2, 17, 128, 600])
def test_every_way_to_split_the_rest_occurs_once(rest):
    ways = np.arange(comb(rest + 2, 2))
    triples = np.stack(split_rest(ways, np.full(len(ways), rest)), axis=1)
    assert (triples >= 0).all() and (triples.sum(axis=1) == rest).all()
    assert len(np.unique(triples, axis=0)) == len(ways)


def test_permuted_spans_are_a_random_choice_of_those_wide_enough():
    lengths = np.array([5, 2, 4, 3, 6])
    orders = draw_orders(np.tile(lengths, (DRAWS, 1)), some_keys(), CONFIG)
    assert orders.shape == (1, DRAWS, 5)
    taken = orders[0] >= 0
    chosen, counts = np.unique(taken, axis=0, return_counts=True)
    pairs = [tuple(np.flatnonzero(row)) for row in chosen]
    assert sorted(pairs) == [(0, 2), (0, 3), (0, 4), (2, 3), (2, 4), (3, 4)]
    assert_counts_fit(counts, np.ones(6))


@pytest.mark.parametrize(("lengths", "taken"), [([1, 2, 0, 2, 2], 0), ([3, 1, 0, 1, 2], 1), ([3, 3, 0, 1, 0], 2)])
def test_fewer_wide_spans_are_all_taken(lengths, taken):
    orders = draw_orders(np.tile(lengths, (100, 1)), some_keys(100), CONFIG)
    assert ((orders[0] >= 0) == (np.array(lengths) >= 3)).all() and (orders[0] >= 0).sum() == 100 * taken


def test_the_six_orders_are_uniform_and_independent_between_spans():
    orders = draw_orders(np.tile([9, 1, 9, 1, 1], (DRAWS, 1)), some_keys(), CONFIG)[0]
    assert_counts_fit(np.bincount(orders[:, 0] * 6 + orders[:, 2], minlength=36), np.ones(36))


@pytest.mark.parametrize("copies", [2, 3, 6])
def test_copies_have_the_true_order_and_distinct_others_uniformly(copies):
    config = replace(CONFIG, permutations=copies)
    orders = draw_orders(np.tile([9, 1, 9, 1, 1], (DRAWS, 1)), some_keys(), config)
    assert orders.shape == (copies, DRAWS, 5)
    assert (orders[0][:, [0, 2]] == 0).all() and (orders[:, :, [1, 3, 4]] == -1).all()
    for span in (0, 2):
        others = orders[1:, :, span].T
        kinds, counts = np.unique(others, axis=0, return_counts=True)
        assert sorted(map(tuple, kinds)) == sorted(permutations(range(1, 6), copies - 1))
        assert_counts_fit(counts, np.ones(len(counts)))


def test_a_label_is_the_new_arrangement_of_first_middle_and_last():
    lengths = np.tile([1, 5, 0, 1, 1], (6, 1))
    orders = np.full((1, 6, 5), -1)
    orders[0, :, 1] = np.arange(6)
    word_borders = np.arange(7) * 8
    source = permute_words(lengths, orders, word_borders).reshape(6, 8) - word_borders[:-1, None]
    first, middle, last = [1], [2, 3, 4], [5]
    arrangements = [
        first + middle + last,
        first + last + middle,
        middle + first + last,
        middle + last + first,
        last + first + middle,
        last + middle + first,
    ]
    assert source.tolist() == [[0, *inside, 6, 7] for inside in arrangements]
    assert ORDERS.tolist() == [list(order) for order in permutations(range(3))]


def test_budget_is_the_exact_ceiling_of_the_fraction():
    pieces = np.arange(1, 400)
    for fraction in (0.15, 0.07, 0.29, 0.1, 1.0, 0.0, 1e-3):
        exact = [ceil(Fraction(str(fraction)) * int(n)) for n in pieces]
        assert tbo_budgets(pieces, replace(CONFIG, tbo_fraction=fraction, max_tbo_pieces=10**6)).tolist() == exact
    pieces = np.array([1, 6, 7, 20, 40, 100, 133, 134, 500])
    assert tbo_budgets(pieces, CONFIG).tolist() == [1, 1, 2, 3, 6, 15, 20, 20, 20]


def plain_tbo_words(word_pieces: list[int], budget: int, key: np.ndarray) -> list[bool]:
    """One sentence: words in the order of their random numbers, each taken where it fits."""
    numbers = [int(randomness.draws(key, Purpose.TBO_WORDS, place)[0]) for place in range(len(word_pieces))]
    taken = [False] * len(word_pieces)
    for word in sorted(range(len(word_pieces)), key=numbers.__getitem__):
        cost = word_pieces[word] - 1
        if cost and cost <= budget:
            taken[word] = True
            budget -= cost
    return taken


@given(st.lists(st.tuples(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(0, 20)), max_size=8))
def test_words_are_taken_whole_in_random_order_while_they_fit(sentences):
    keys = randomness.keys(5, 1, np.arange(len(sentences)))
    taken = take_words(
        np.array([n - 1 for words, _ in sentences for n in words], dtype=np.int64),
        np.array([len(words) for words, _ in sentences], dtype=np.int64),
        np.array([budget for _, budget in sentences], dtype=np.int64),
        keys,
        Purpose.TBO_WORDS,
    )
    plain = [plain_tbo_words(words, budget, keys[i : i + 1]) for i, (words, budget) in enumerate(sentences)]
    assert taken.tolist() == [value for values in plain for value in values]


def test_every_order_of_words_is_equally_likely():
    # Costs 3, 2, 2 and a budget of 4: the first word in the random order decides, a cost of 3 leaves room for nothing.
    budgets, words = np.full(DRAWS, 4), np.full(DRAWS, 4)
    taken = take_words(np.tile([3, 0, 2, 2], DRAWS), words, budgets, some_keys(), Purpose.TBO_WORDS)
    kinds, counts = np.unique(taken.reshape(-1, 4), axis=0, return_counts=True)
    assert kinds.tolist() == [[False, False, True, True], [True, False, False, False]]
    assert_counts_fit(counts, np.array([2 / 3, 1 / 3]))


def test_a_word_over_the_budget_is_skipped_and_smaller_ones_still_fit():
    budgets, words = np.full(DRAWS, 3), np.full(DRAWS, 3)
    taken = take_words(np.tile([5, 1, 2], DRAWS), words, budgets, some_keys(), Purpose.TBO_WORDS)
    assert (taken.reshape(-1, 3) == [False, True, True]).all()


def random_batch(memory_store, sentences: int = 300) -> SentenceBatch:
    store = memory_store([sentences])
    return SentenceReader(store, 1).read(np.zeros(sentences, dtype=int), np.arange(sentences))


def some_of(batch: SentenceBatch, chosen: np.ndarray) -> SentenceBatch:
    pieces = [np.arange(*batch.piece_borders_N1[i : i + 2]) for i in chosen]
    words = [np.arange(*batch.word_borders_N1[i : i + 2]) for i in chosen]
    piece_borders, word_borders = borders([len(p) for p in pieces]), borders([len(w) for w in words])
    firsts = [
        batch.first_piece_W[w] - batch.piece_borders_N1[i] + start
        for i, w, start in zip(chosen, words, piece_borders, strict=False)
    ]
    return SentenceBatch(batch.piece_ids_T[np.concatenate(pieces)], piece_borders, np.concatenate(firsts), word_borders)


def decisions(corrupted: Corrupted, sentence: int) -> list:
    """All that was decided about one sentence, independent of its place in the batch."""
    n = corrupted.n_sentences
    result = [corrupted.span_words_N5[sentence].tolist(), corrupted.orders_CN5[:, sentence].tolist()]
    for copy in range(corrupted.copies):
        start, end = corrupted.word_borders_R1[copy * n + sentence : copy * n + sentence + 2]
        result.append(corrupted.piece_ids_U[corrupted.first_piece_V1[start] : corrupted.first_piece_V1[end]].tolist())
        if copy == 0:
            result += [(corrupted.source_word_V[start:end] - start).tolist(), corrupted.tbo_words_W[start:end].tolist()]
    return result


@pytest.mark.parametrize("copies", [1, 3])
def test_corruption_of_a_sentence_does_not_depend_on_its_batch(memory_store, copies):
    config = replace(CONFIG, permutations=copies)
    batch, ids, epochs = random_batch(memory_store), np.arange(300) * 7, np.arange(300) % 3
    whole = corrupt(batch, ids, epochs, 4, config)
    rng = np.random.default_rng(0)
    for size in (1, 2, 17, 300):
        chosen = rng.permutation(300)[:size]
        part = corrupt(some_of(batch, chosen), ids[chosen], epochs[chosen], 4, config)
        for place, sentence in enumerate(chosen):
            assert decisions(part, place) == decisions(whole, sentence)


def test_seed_and_epoch_change_the_corruption(memory_store):
    batch, ids = random_batch(memory_store), np.arange(300)
    results = [corrupt(batch, ids, epoch, seed, CONFIG) for epoch in range(2) for seed in range(2)]
    spans = [tuple(r.span_words_N5.ravel()) for r in results]
    assert len(set(spans)) == 4


def test_too_short_a_sentence_is_named():
    batch = SentenceBatch(np.arange(5), np.array([0, 3, 5]), np.arange(5), np.array([0, 3, 5]))
    with pytest.raises(DataError, match="sentence 42 has 2 words"):
        corrupt(batch, np.array([41, 42]), 0, 0, CONFIG)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("span_width_p", 0.0),
        ("max_span_words", 0),
        ("view_masks", "all"),
        ("permuted_spans", 6),
        ("min_permuted_words", 2),
        ("permutations", 7),
        ("tbo_fraction", 1.5),
        ("max_tbo_pieces", -1),
    ],
)
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(ConfigError, match=name):
        check_corruption(replace(CONFIG, **{name: value}))
