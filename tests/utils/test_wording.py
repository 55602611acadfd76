"""Numbers in sentences that people read."""

from __future__ import annotations

import pytest

from spe_dist.utils.wording import counted, how_many, rate


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 sentences"), (1, "1 sentence"), (2, "2 sentences"), (1861, "1,861 sentences")]
)
def test_the_noun_follows_the_count(count, words):
    assert how_many(count, "sentence") == words


def test_a_plural_of_its_own():
    assert (how_many(1, "entity", "entities"), how_many(3, "entity", "entities")) == ("1 entity", "3 entities")


def test_reasons_are_counted_without_a_grammatical_number_and_those_that_did_not_occur_left_out():
    assert counted({"blank lines": 1, "damaged lines": 0, "long lines": 2000}) == [
        "blank lines: 1",
        "long lines: 2,000",
    ]


def test_rates_below_ten_keep_a_decimal_and_no_time_is_no_error():
    assert (rate(1861, 1.0), rate(99, 10.0), rate(1, 2.0)) == ("1,861", "9.9", "0.5")
    assert rate(0, 0.0) == "0.0"
