"""How sure a score is: bootstrap confidence intervals, and a paired test between two systems on the same gold.

The units that are drawn or swapped are documents, or sentences where a format has no documents: sentences of one
document are not independent. Everything works on each unit's counts, so no prediction is matched twice.

- Intervals: percentile bootstrap (Efron and Tibshirani 1993). Units are drawn with replacement, as many as there are,
  and F1 is computed from the sums; the interval holds the middle 95%.
- Paired test: approximate randomisation (Noreen 1989; Yeh 2000). Under the null hypothesis it makes no difference which
  system made which prediction, so for each unit both systems' counts change places with probability 1/2. The p-value is
  the share of draws in which F1 differs at least as much, either way, as it really does, with the real assignment
  counted in: (hits + 1) / (draws + 1), which is never 0 (Davison and Hinkley 1997).
- The interval of the difference is a paired bootstrap: both systems are scored on the same drawn units.
- Several runs of each system, one a seed: what is compared is the mean F1 over the runs. Seeds and units are drawn with
  replacement, independently of each other, and both systems are scored on the same drawn seeds and units (pigeonhole
  bootstrap, Owen 2007), so the interval holds what other seeds and what other sentences would change. Of R seeds, R - 1
  are drawn: their mean varies as the mean of R seeds does, while that of R drawn ones varies too little, by the factor
  (R - 1) / R. The p-value is twice the smaller share of draws on one side of 0, (hits + 1) / (draws + 1) as above.
"""

# U units, N names (metric and type), B draws, R runs (seeds)

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from spe_dist.errors import DataError
from spe_dist.extraction.scoring.counts import Name, UnitCounts

LEVEL = 0.95
DRAWS = 1_000
TEST_DRAWS = 10_000
NUMBERS_AT_ONCE = 4_000_000  # random numbers held in memory
SAME = 1e-12  # differences of F1 below this are rounding errors


@dataclass(frozen=True)
class Comparison:
    """Two systems' F1, and `difference` = b - a with its interval and the p-value of "there is none"."""

    a: float
    b: float
    difference: float
    low: float
    high: float
    p_value: float

    def to_json(self) -> dict[str, float | list[float]]:
        return {
            "baseline_f1": self.a,
            "f1": self.b,
            "difference": self.difference,
            "interval": [self.low, self.high],
            "p_value": self.p_value,
        }


def confidence_intervals(units: UnitCounts, draws: int = DRAWS, seed: int = 0) -> dict[Name, tuple[float, float]]:
    """The 95% bootstrap interval of F1, by metric and type; ("entity", None) is that of all entities.

    Args:
        draws: how many samples of units are drawn; intervals get smoother with more.
    """
    if not len(units.counts_UN3):
        return {name: (0.0, 0.0) for name in units.names}
    drawn_BN = np.concatenate([f1(sums_BN3) for sums_BN3 in _bootstrap_sums(units.counts_UN3, draws, seed)])
    low_N, high_N = _percentiles(drawn_BN)
    return {name: (float(low_N[n]), float(high_N[n])) for n, name in enumerate(units.names)}


def compare(
    a: UnitCounts, b: UnitCounts, draws: int = DRAWS, test_draws: int = TEST_DRAWS, seed: int = 0
) -> dict[Name, Comparison]:
    """F1 of `b` against the baseline `a`, for each metric and each type that either has.

        comparison = compare(score(gold, of_bert).units, score(gold, of_spe).units)["ent_rel", None]
        print(comparison.difference, comparison.low, comparison.high, comparison.p_value)

    Args:
        draws: of the bootstrap, for the interval of the difference.
        test_draws: of the approximate randomisation, for the p-value.

    Raises:
        DataError: the two were not scored on the same gold.
    """
    names, (a_UN3, b_UN3) = _same_columns([a, b])
    a_N, b_N = (f1(counts_UN3.sum(axis=0, dtype=np.int64)) for counts_UN3 in (a_UN3, b_UN3))
    if not len(a_UN3):
        return {name: Comparison(0.0, 0.0, 0.0, 0.0, 0.0, 1.0) for name in names}
    low_N, high_N = _difference_interval(a_UN3, b_UN3, draws, seed)
    p_N = randomisation_test(a_UN3, b_UN3, test_draws, seed)
    return {
        name: Comparison(
            float(a_N[n]), float(b_N[n]), float(b_N[n] - a_N[n]), float(low_N[n]), float(high_N[n]), float(p_N[n])
        )
        for n, name in enumerate(names)
    }


def compare_runs(
    a: Sequence[UnitCounts], b: Sequence[UnitCounts], draws: int = TEST_DRAWS, seed: int = 0
) -> dict[Name, Comparison]:
    """Mean F1 over the runs of `b` against that over the runs of the baseline `a`: a[i] and b[i] have the same seed.

    One run each is compared as by `compare`.

    Args:
        draws: of seeds and units, for interval and p-value.

    Raises:
        DataError: there are not as many runs of both, none, or they were not scored on the same gold.
    """
    if not a or len(a) != len(b):
        raise DataError(f"{len(a)} runs of the baseline and {len(b)} to compare: give one of each for every seed")
    if len(a) == 1:
        return compare(a[0], b[0], test_draws=draws, seed=seed)
    names, counts = _same_columns([*a, *b])
    runs, units = len(a), len(counts[0])
    if not units:
        return {name: Comparison(0.0, 0.0, 0.0, 0.0, 0.0, 1.0) for name in names}
    counts_URN3 = np.stack(counts, axis=1)
    of_a_RN, of_b_RN = np.split(f1(counts_URN3.sum(axis=0, dtype=np.int64)), 2)
    random = np.random.default_rng((seed, 2))
    drawn = []
    for sums_BRN3 in _bootstrap_sums(counts_URN3, draws, seed):
        difference_BRN = f1(sums_BRN3[:, runs:]) - f1(sums_BRN3[:, :runs])
        times_BR = random.multinomial(runs - 1, [1 / runs] * runs, len(sums_BRN3)) / (runs - 1)
        drawn.append(np.einsum("br,brn->bn", times_BR, difference_BRN))
    drawn_BN = np.concatenate(drawn)
    low_N, high_N = _percentiles(drawn_BN)
    hits_N = np.minimum((drawn_BN <= SAME).sum(axis=0), (drawn_BN >= -SAME).sum(axis=0))
    p_N = np.minimum(1.0, 2 * (hits_N + 1) / (draws + 1))
    a_N, b_N = of_a_RN.mean(axis=0), of_b_RN.mean(axis=0)
    return {
        name: Comparison(*(float(x[n]) for x in (a_N, b_N, b_N - a_N, low_N, high_N, p_N)))
        for n, name in enumerate(names)
    }


def f1(counts: np.ndarray) -> np.ndarray:
    """F1 from tp, predicted and gold in the last dimension; 0 where nothing is predicted or gold."""
    tp, both = counts[..., 0], counts[..., 1] + counts[..., 2]
    return 2 * tp / np.maximum(both, 1)


def randomisation_test(a_UN3: np.ndarray, b_UN3: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """p-value of each column's difference in F1, two-sided, by approximate randomisation over the units."""
    differ_U = (a_UN3 != b_UN3).any(axis=(1, 2))  # the others stay what they are whoever made them
    swap_UN2 = (b_UN3 - a_UN3)[differ_U, :, :2]  # gold stays what it is
    a_N3, b_N3 = a_UN3.sum(axis=0, dtype=np.float64), b_UN3.sum(axis=0, dtype=np.float64)
    observed_N = np.abs(f1(b_N3) - f1(a_N3))
    hits_N = np.zeros(len(a_N3), np.int64)
    random = np.random.default_rng((seed, 1))
    for size in _sizes(draws, len(swap_UN2)):
        swapped_BU = random.integers(0, 2, (size, len(swap_UN2)), dtype=np.int8)
        moved_BN3 = np.pad(_sums(swapped_BU, swap_UN2), ((0, 0), (0, 0), (0, 1)))
        difference_BN = np.abs(f1(b_N3 - moved_BN3) - f1(a_N3 + moved_BN3))
        hits_N += (difference_BN >= observed_N - SAME).sum(axis=0)
    return (hits_N + 1) / (draws + 1)


def _difference_interval(a_UN3: np.ndarray, b_UN3: np.ndarray, draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Both systems in one array, so that they are scored on the same drawn units."""
    names = a_UN3.shape[1]
    sums = _bootstrap_sums(np.concatenate([a_UN3, b_UN3], axis=1), draws, seed)
    return _percentiles(np.concatenate([f1(s[:, names:]) - f1(s[:, :names]) for s in sums]))


def _bootstrap_sums(counts: np.ndarray, draws: int, seed: int) -> Iterator[np.ndarray]:
    """Sums [B, ...] of counts [U, ...] over units drawn with replacement: how often each is drawn, times its counts."""
    units = len(counts)
    random = np.random.default_rng((seed, 0))
    for size in _sizes(draws, units):
        drawn_BU = random.integers(0, units, (size, units)) + units * np.arange(size)[:, None]
        times_BU = np.bincount(drawn_BU.ravel(), minlength=size * units).reshape(size, units)
        yield _sums(times_BU, counts)


def _sums(times_BU: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Each draw's sums of the units' counts. Exact in float32, which multiplies fastest, below 2^24."""
    exact = np.float32 if np.abs(counts).sum(axis=0).max(initial=0) * times_BU.max(initial=0) < 2**24 else np.float64
    return np.tensordot(times_BU.astype(exact), counts.astype(exact), axes=1).astype(np.float64)


def _sizes(draws: int, units: int) -> Iterator[int]:
    """Cut the draws so that the random numbers of each part fit in memory."""
    at_once = max(1, NUMBERS_AT_ONCE // max(units, 1))
    for start in range(0, draws, at_once):
        yield min(at_once, draws - start)


def _percentiles(drawn_BN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    tail = (1 - LEVEL) / 2
    low_N, high_N = np.quantile(drawn_BN, [tail, 1 - tail], axis=0)
    return low_N, high_N


def _same_columns(systems: Sequence[UnitCounts]) -> tuple[list[Name], list[np.ndarray]]:
    """Counts [U, N, 3] of all under the same names; a type that one of them never has is 0 there.

    Raises:
        DataError: they were not scored on the same gold.
    """
    names = list(dict.fromkeys(name for units in systems for name in units.names))
    counts = [_columns(units, names) for units in systems]
    if any(c.shape != counts[0].shape or not np.array_equal(c[..., 2], counts[0][..., 2]) for c in counts):
        raise DataError(
            "a paired test needs systems on the same gold, but these have different ones; score all with the same gold "
            "file and the same symmetric types"
        )
    return names, counts


def _columns(units: UnitCounts, names: list[Name]) -> np.ndarray:
    counts_UN3 = np.zeros((len(units.counts_UN3), len(names), 3), np.int64)
    if len(units.names):
        counts_UN3[:, [names.index(name) for name in units.names]] = units.counts_UN3
    return counts_UN3
