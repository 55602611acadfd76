"""Ranges of numbers on command lines."""

from __future__ import annotations

import argparse

import pytest

from spe_dist.cli.options.numbers import number, whole_number


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (whole_number(), "0", 0),
        (whole_number(1, 3), "3", 3),
        (whole_number(-2), " -2 ", -2),
        (number(0, 1), "1e-3", 0.001),
        (number(0, 1), "1", 1.0),
        (number(), "12345.5", 12345.5),
    ],
)
def test_numbers_of_the_range_are_taken(kind, text, value):
    assert kind(text) == value and type(kind(text)) is type(value)


@pytest.mark.parametrize(
    ("kind", "text", "told"),
    [
        (whole_number(), "x", "'x' is not a whole number"),
        (whole_number(), "1.5", "'1.5' is not a whole number"),
        (whole_number(), "", "'' is not a whole number"),
        (whole_number(), "-1", "-1 is too small; give at least 0"),
        (whole_number(0, 1_000_000), "1000001", "1000001 is too large; give at most 1,000,000"),
        (number(0, 1), "1.01", "1.01 is too large; give at most 1"),
        (number(0.1), "0", "0 is too small; give at least 0.1"),
        (number(), "nan", "'nan' is not a number"),
        (number(), "inf", "'inf' is not a number"),
        (number(), "half", "'half' is not a number"),
    ],
)
def test_what_lies_outside_is_told_with_the_remedy(kind, text, told):
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        kind(text)
    assert str(caught.value) == told
