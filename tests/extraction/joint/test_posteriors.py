"""The probability that a span is an entity: its share of all valid tag sequences, here counted one by one."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch

from spe_dist.extraction.joint.posteriors import SpanPosteriors
from spe_dist.extraction.joint.tags import BEGIN, END, INSIDE, OUTSIDE, TAGS, UNIT

LENGTHS = [4, 0, 1, 6, 3]
BORDERS = torch.tensor([0, *itertools.accumulate(LENGTHS)])


def spans_of(tags: tuple[int, ...]) -> list[tuple[int, int]] | None:
    """The entities of a sequence of tags; None where it is not valid."""
    spans, start = [], None
    for i, tag in enumerate(tags):
        if (tag in (INSIDE, END)) != (start is not None):
            return None
        if tag == UNIT:
            spans.append((i, i + 1))
        elif tag == BEGIN:
            start = i
        elif tag == END:
            assert start is not None
            spans.append((start, i + 1))
            start = None
        else:
            assert tag in (INSIDE, OUTSIDE)
    return None if start is not None else spans


def counted(log_probs_G5: torch.Tensor) -> dict[tuple[int, int], float]:
    shares: dict[tuple[int, int], float] = {}
    for first, n_words in zip(BORDERS.tolist(), LENGTHS, strict=False):
        found: Counter[tuple[int, int]] = Counter()
        total = 0.0
        for tags in itertools.product(range(len(TAGS)), repeat=n_words):
            spans = spans_of(tags)
            if spans is None:
                continue
            weight = (
                float(sum(log_probs_G5[first + i, tag].double() for i, tag in enumerate(tags)).exp()) if tags else 1
            )
            total += weight
            found.update({(first + a, first + b): weight for a, b in spans})
        shares |= {span: weight / total for span, weight in found.items()}
    return shares


@pytest.fixture(scope="module")
def log_probs_G5() -> torch.Tensor:
    return torch.log_softmax(2 * torch.randn(sum(LENGTHS), 5, generator=torch.Generator().manual_seed(0)), dim=1)


@pytest.fixture(scope="module")
def shares(log_probs_G5: torch.Tensor) -> dict[tuple[int, int], float]:
    return counted(log_probs_G5)


def test_probabilities_of_spans_are_their_shares_of_all_valid_sequences(log_probs_G5, shares):
    posteriors = SpanPosteriors(log_probs_G5, BORDERS, max(LENGTHS))
    spans = sorted(shares)
    start_S, end_S = (torch.tensor(side) for side in zip(*spans, strict=True))
    assert posteriors.of(start_S, end_S).tolist() == pytest.approx([shares[span] for span in spans], abs=1e-6)


@pytest.mark.parametrize("threshold", [0.01, 0.1, 0.3, 0.6])
def test_all_spans_of_at_least_a_probability_are_found_in_order(log_probs_G5, shares, threshold):
    start_S, end_S, probability_S = SpanPosteriors(log_probs_G5, BORDERS, max(LENGTHS)).at_least(threshold)
    found = list(zip(start_S.tolist(), end_S.tolist(), strict=True))
    assert found == sorted(span for span, share in shares.items() if share >= threshold)
    assert probability_S.tolist() == pytest.approx([shares[span] for span in found], abs=1e-6)


def test_spans_of_one_word_have_one_together_at_most(shares):
    for word in range(sum(LENGTHS)):
        assert sum(share for (start, end), share in shares.items() if start <= word < end) <= 1 + 1e-9


def test_a_long_name_whose_words_agree_is_as_probable_as_a_short_one():
    """Each word has its tag with 0.8: as a product, nine words would have 0.13."""
    rows = torch.full((11, 5), 0.05)
    for word, tag in enumerate([OUTSIDE, BEGIN, *[INSIDE] * 7, END, OUTSIDE]):
        rows[word, tag] = 0.8
    whole = SpanPosteriors(rows.log(), torch.tensor([0, 11]), 11)
    (probability,) = whole.of(torch.tensor([1]), torch.tensor([10])).tolist()
    assert probability > 0.6


def test_thousands_of_words_keep_their_precision():
    certain = torch.full((20_000, 5), 1e-6)
    certain[:, OUTSIDE] = 1 - 4e-6
    certain[7_000] = torch.tensor([1e-6, 1e-6, 1e-6, 0.5 - 1e-6, 0.5 - 2e-6])
    posteriors = SpanPosteriors(certain.log(), torch.tensor([0, 20_000]), 20_000)
    assert posteriors.of(torch.tensor([7_000]), torch.tensor([7_001])).item() == pytest.approx(0.5, abs=1e-3)
    assert posteriors.at_least(0.1)[0].tolist() == [7_000]


def test_no_words_have_no_spans():
    start_S, end_S, probability_S = SpanPosteriors(torch.zeros(0, 5), torch.tensor([0, 0]), 0).at_least(0.1)
    assert start_S.tolist() == end_S.tolist() == probability_S.tolist() == []
