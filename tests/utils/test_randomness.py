import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spe_dist.utils.randomness import Purpose, below, derive_seed, draws, keys, uniform


def chi_square_is_plausible(counts: np.ndarray, expected: np.ndarray) -> bool:
    """Within five standard deviations of the statistic's mean."""
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = counts.size - 1
    return bool(statistic < freedom + 5 * np.sqrt(2 * freedom))


def plain_number(seed: int, epoch: int, sentence: int, purpose: int, index: int) -> int:
    """The same number with Python's integers."""

    def mix(state: int) -> int:
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ state >> 27) * 0x94D049BB133111EB % 2**64
        return state ^ state >> 31

    state = mix(seed % 2**64)
    for value in (epoch, sentence, purpose, index):
        state = mix((state + (value + 1) * 0x9E3779B97F4A7C15) % 2**64)
    return state


@given(*[st.integers(-(2**40), 2**40)] * 3, st.sampled_from(Purpose), st.integers(0, 1000))
def test_numbers_are_the_chain_of_splitmix64(seed, epoch, sentence, purpose, index):
    number = draws(keys(seed, epoch, np.array([sentence])), purpose, index)[0]
    assert number == plain_number(seed, epoch, sentence, purpose, index)


def test_numbers_never_change():
    bits = draws(keys(7, 3, np.array([0, 1, 2**40])), Purpose.ORDERS, 2)
    assert bits.tolist() == [1814939114530480677, 4440216682794852458, 7778923760240634717]


@given(st.integers(-(2**70), 2**70), st.integers(0, 2**31), st.lists(st.integers(0, 2**50), min_size=1, max_size=20))
def test_a_number_depends_on_its_own_key_alone(seed, epoch, ids):
    together = draws(keys(seed, epoch, np.array(ids)), Purpose.TBO_WORDS, 5)
    alone = [draws(keys(seed, epoch, np.array([i])), Purpose.TBO_WORDS, 5)[0] for i in ids]
    assert together.tolist() == alone


def test_seed_epoch_id_purpose_and_index_each_change_the_number():
    numbers = [
        draws(keys(seed, epoch, sentence), purpose, index)[0]
        for seed in range(4)
        for epoch in range(4)
        for sentence in range(4)
        for purpose in Purpose
        for index in range(4)
    ]
    assert len(set(numbers)) == len(numbers)


def test_epochs_may_differ_inside_a_batch():
    mixed = keys(1, np.array([0, 1, 0]), np.array([5, 5, 6]))
    assert mixed.tolist() == [int(keys(1, e, i)[0]) for e, i in ((0, 5), (1, 5), (0, 6))]


def test_uniform_numbers_are_uniform_over_ids_epochs_and_indices():
    for bits in (
        draws(keys(0, 0, np.arange(100_000)), Purpose.ORDERS),
        draws(keys(0, np.arange(100_000), 3), Purpose.ORDERS),
        draws(keys(0, 0, 3), Purpose.ORDERS, np.arange(100_000)),
    ):
        values = uniform(bits)
        assert values.min() >= 0 and values.max() < 1
        assert chi_square_is_plausible(np.bincount((values * 100).astype(int), minlength=100), np.full(100, 1000.0))


def test_numbers_of_neighbouring_ids_and_purposes_are_uncorrelated():
    ids = keys(0, 0, np.arange(100_001))
    values = uniform(draws(ids, Purpose.ORDERS))
    other = uniform(draws(ids, Purpose.TBO_WORDS))
    for a, b in ((values[1:], values[:-1]), (values, other)):
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.016  # five standard deviations


def test_below_is_uniform_under_its_bound():
    values = below(draws(keys(0, 0, np.arange(60_000)), Purpose.ORDERS), 6)
    assert chi_square_is_plausible(np.bincount(values, minlength=6), np.full(6, 10_000.0))
    assert below(np.array([0, 2**64 - 1], dtype=np.uint64), np.array([1, 7])).tolist() == [0, 6]


def test_derived_seeds_differ_from_their_source():
    assert derive_seed(0, Purpose.EVALUATION) not in (0, derive_seed(1, Purpose.EVALUATION))
    assert 0 <= derive_seed(-1, Purpose.EVALUATION) < 2**63
