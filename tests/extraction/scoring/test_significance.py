"""Intervals and paired tests, against all resamples and all assignments where these can be listed."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from spe_dist.errors import DataError
from spe_dist.extraction.corpora.corpus import Corpus, Document, Entity, Sentence
from spe_dist.extraction.scoring.counts import UnitCounts
from spe_dist.extraction.scoring.scores import score
from spe_dist.extraction.scoring.significance import (
    compare,
    compare_runs,
    confidence_intervals,
    f1,
    randomisation_test,
)

NAMES = (("entity", None),)


def counts_of(counts_U3: list[list[int]]) -> UnitCounts:
    """Units with these counts (tp, predicted, gold) of entities."""
    return UnitCounts(NAMES, np.array(counts_U3, np.int32)[:, None], "documents")


A = [[1, 2, 3], [0, 1, 2], [2, 2, 2], [1, 4, 2], [3, 3, 4], [0, 2, 1]]
B = [[2, 2, 3], [1, 1, 2], [2, 2, 2], [2, 3, 2], [3, 4, 4], [1, 1, 1]]


def plain_f1(units: list[list[int]]) -> float:
    tp, predicted, gold = (sum(column) for column in zip(*units, strict=True))
    return 2 * tp / (predicted + gold)


def test_intervals_hold_the_middle_of_all_resamples():
    units = A[:5]
    every = sorted(plain_f1([units[i] for i in drawn]) for drawn in itertools.product(range(5), repeat=5))
    expected = np.quantile(every, [0.025, 0.975])
    ((low, high),) = confidence_intervals(counts_of(units), draws=20_000).values()
    assert (low, high) == pytest.approx(expected, abs=0.012)
    assert low < plain_f1(units) < high


# Systems with the same hits in every unit, but not as many predictions; and the other way round.
SAME_HITS = [[tp, predicted + extra, gold] for (tp, predicted, gold), extra in zip(A, (2, 0, 1, 1, 3, 2), strict=True)]
SAME_PREDICTIONS = [[max(0, tp - less), p, gold] for (tp, p, gold), less in zip(A, (1, 0, 1, 0, 2, 1), strict=True)]


@pytest.mark.parametrize("b", [B, SAME_HITS, SAME_PREDICTIONS], ids=["both", "predictions alone", "hits alone"])
def test_p_value_is_the_share_of_all_assignments_with_as_large_a_difference(b):
    observed = abs(plain_f1(b) - plain_f1(A))
    hits = 0
    for swaps in itertools.product((False, True), repeat=len(A)):
        one = [theirs if swap else ours for swap, ours, theirs in zip(swaps, A, b, strict=True)]
        other = [ours if swap else theirs for swap, ours, theirs in zip(swaps, A, b, strict=True)]
        hits += abs(plain_f1(other) - plain_f1(one)) >= observed - 1e-12
    ((comparison),) = compare(counts_of(A), counts_of(b), test_draws=50_000).values()
    assert comparison.p_value == pytest.approx(hits / 2 ** len(A), abs=0.01)
    assert 0 < hits < 2 ** len(A)
    assert comparison.difference == pytest.approx(plain_f1(b) - plain_f1(A))
    assert comparison.low < comparison.difference < comparison.high


def test_the_difference_is_resampled_with_both_systems_on_the_same_units():
    every = []
    for drawn in itertools.product(range(5), repeat=5):
        every.append(plain_f1([B[i] for i in drawn]) - plain_f1([A[i] for i in drawn]))
    ((comparison),) = compare(counts_of(A[:5]), counts_of(B[:5]), draws=20_000).values()
    assert (comparison.low, comparison.high) == pytest.approx(np.quantile(every, [0.025, 0.975]), abs=0.012)


def test_equal_systems_have_a_p_value_of_one_and_no_difference():
    ((comparison),) = compare(counts_of(A), counts_of(A)).values()
    assert (comparison.difference, comparison.low, comparison.high, comparison.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_a_p_value_is_never_zero():
    good, bad = [[5, 5, 5]] * 60, [[0, 5, 5]] * 60
    ((comparison),) = compare(counts_of(bad), counts_of(good), test_draws=99).values()
    assert comparison.p_value == 1 / 100


def test_the_test_is_symmetric_and_draws_depend_on_the_seed_alone():
    one, again = (compare(counts_of(A), counts_of(B), seed=7) for _ in range(2))
    other_way = compare(counts_of(B), counts_of(A), seed=7)
    assert one == again
    assert one[NAMES[0]].p_value == other_way[NAMES[0]].p_value
    assert one[NAMES[0]].low == pytest.approx(-other_way[NAMES[0]].high)
    assert confidence_intervals(counts_of(A), seed=1) != confidence_intervals(counts_of(A), seed=2)


def test_counts_of_any_size_are_summed_exactly():
    """Equal differences stay equal, or the p-value would fall with the size of the corpus."""
    large = [[[200_000 * count for count in unit] for unit in units] for units in (A, B)]
    ((small,), (big,)) = (compare(*map(counts_of, two)).values() for two in ((A, B), large))
    assert big == small


def test_many_units_are_drawn_in_parts_that_fit_in_memory(monkeypatch):
    counts = [[i % 3, 3, 4] for i in range(50)]
    whole = confidence_intervals(counts_of(counts), draws=400)
    monkeypatch.setattr("spe_dist.extraction.scoring.significance.NUMBERS_AT_ONCE", 333)
    assert confidence_intervals(counts_of(counts), draws=400) == whole


def test_p_values_under_the_null_hypothesis_are_uniform():
    draw = np.random.default_rng(0)
    values = []
    for seed in range(200):
        gold = draw.integers(1, 5, 40)
        a, b = (np.stack([draw.binomial(gold, 0.6), gold, gold], axis=1)[:, None] for _ in range(2))
        values.append(randomisation_test(a, b, 200, seed)[0])
    assert 0.02 <= np.mean(np.array(values) <= 0.1) <= 0.17
    assert 0.4 <= np.mean(np.array(values) <= 0.5) <= 0.6


RUNS_A = [A[:3], B[:3], SAME_HITS[:3]]
RUNS_B = [B[:3], SAME_HITS[:3], SAME_PREDICTIONS[:3]]


def test_runs_are_drawn_with_both_systems_on_the_same_seeds_and_units():
    every = []
    for units in itertools.product(range(3), repeat=3):
        for seeds in itertools.product(range(3), repeat=2):  # one less than there are
            means = [
                np.mean([plain_f1([system[seed][unit] for unit in units]) for seed in seeds])
                for system in (RUNS_A, RUNS_B)
            ]
            every.append(means[1] - means[0])
    (found,) = compare_runs([*map(counts_of, RUNS_A)], [*map(counts_of, RUNS_B)], draws=40_000).values()
    assert found.a == pytest.approx(np.mean([plain_f1(run) for run in RUNS_A]))
    assert found.b == pytest.approx(np.mean([plain_f1(run) for run in RUNS_B]))
    assert found.difference == pytest.approx(found.b - found.a)
    assert (found.low, found.high) == pytest.approx(np.quantile(every, [0.025, 0.975]), abs=0.012)
    below, above = np.mean(np.array(every) <= 1e-12), np.mean(np.array(every) >= -1e-12)
    assert 0.05 < 2 * min(below, above) < 0.95
    assert found.p_value == pytest.approx(2 * min(below, above), abs=0.02)


def test_one_run_of_each_is_compared_as_two_systems_are():
    assert compare_runs([counts_of(A)], [counts_of(B)], draws=500) == compare(
        counts_of(A), counts_of(B), test_draws=500
    )


def test_runs_of_equal_systems_that_differ_by_seed_are_rarely_told_apart():
    """Each run has a level of its own, which a test over sentences alone would take for a difference."""
    draw = np.random.default_rng(0)
    values, over_sentences_alone = [], []
    for seed in range(200):
        gold = draw.integers(1, 5, 60)
        levels = draw.normal(0.5, 0.06, (2, 5)).clip(0, 1)
        runs = [[counts_of([[draw.binomial(g, p), g, g] for g in gold]) for p in system] for system in levels]
        values.append(compare_runs(*runs, draws=400, seed=seed)[NAMES[0]].p_value)
        over_sentences_alone.append(compare(runs[0][0], runs[1][0], 50, 400, seed)[NAMES[0]].p_value)
    assert np.mean(np.array(values) <= 0.05) <= 0.12
    assert np.mean(np.array(over_sentences_alone) <= 0.05) >= 0.2
    assert np.mean(np.array(values) <= 0.5) >= 0.3


def test_runs_that_all_differ_the_same_way_are_told_apart():
    draw = np.random.default_rng(1)
    gold = draw.integers(1, 5, 200)
    runs = [[counts_of([[draw.binomial(g, p), g, g] for g in gold]) for _ in range(5)] for p in (0.5, 0.6)]
    found = compare_runs(*runs)[NAMES[0]]
    assert found.p_value < 0.01 and 0 < found.low < found.difference < found.high


def test_runs_without_a_partner_are_an_error():
    with pytest.raises(DataError, match="2 runs of the baseline and 1 to compare"):
        compare_runs([counts_of(A)] * 2, [counts_of(B)])
    with pytest.raises(DataError, match="0 runs"):
        compare_runs([], [])
    with pytest.raises(DataError, match="same gold"):
        compare_runs([counts_of(A)] * 2, [counts_of(B), counts_of(B[:3])])


def test_types_of_one_system_alone_count_as_nothing_in_the_other():
    words = ("a", "b")
    gold = Corpus((Document("d", (Sentence(words, (Entity(0, 1, "X"),)),)),))
    with_other = gold.with_sentences([Sentence(words, (Entity(0, 1, "Y"),))])
    compared = compare(score(gold, gold).units, score(gold, with_other).units)
    assert {kind for metric, kind in compared if metric == "entity"} == {None, "X", "Y"}
    assert (compared["entity", "X"].a, compared["entity", "X"].b) == (1.0, 0.0)
    assert (compared["entity", "Y"].a, compared["entity", "Y"].b) == (0.0, 0.0)


def test_totals_by_unit_are_compared_as_before_once_written_and_read():
    words = ("a", "b", "c")
    sentences = [Sentence(words, (Entity(0, 1, "X"), Entity(1, 2, "Y"))), Sentence(words, (Entity(2, 3, "X"),))]
    gold = Corpus((Document("d", tuple(sentences)),))
    part = gold.with_sentences([Sentence(words, (Entity(0, 1, "X"),)), Sentence(words)])
    whole = [score(gold, found).units for found in (part, gold)]
    totals = [UnitCounts.from_json(json.loads(json.dumps(units.to_json())), "a file") for units in whole]
    assert totals[0].description == "2 sentences" and totals[0].counts_UN3[:, 0].tolist() == [[1, 1, 2], [0, 0, 1]]
    before, after = compare(*whole), compare(*totals)
    assert after == {name: before[name] for name in after} and len(after) == 3


def test_different_gold_is_an_error():
    with pytest.raises(DataError, match="same gold"):
        compare(counts_of(A), counts_of([[1, 2, 4], *A[1:]]))
    with pytest.raises(DataError, match="same gold"):
        compare(counts_of(A), counts_of(A[1:]))


def test_nothing_at_all_has_intervals_and_no_difference():
    empty = score(Corpus(()), Corpus(())).units
    assert set(confidence_intervals(empty).values()) == {(0.0, 0.0)}
    assert {comparison.p_value for comparison in compare(empty, empty).values()} == {1.0}


def test_f1_of_nothing_is_zero():
    assert f1(np.array([[0, 0, 0], [1, 1, 1]])).tolist() == [0.0, 1.0]
