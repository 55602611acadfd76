"""Names that mean one file of a folder and nothing else."""

from __future__ import annotations

import pytest

from spe_dist.utils.reading.names import is_safe_name


@pytest.mark.parametrize("name", ["train-00000.tar", "vocab.txt", "a", "_x", "00000000.npz", "Held_Out-1.v2.tar"])
def test_usual_names_are_taken(name):
    assert is_safe_name(name)


@pytest.mark.parametrize(
    "name",
    "|..|../x|/x|a/b|a\\b|a..b|-rf|.ssh|$(x)|`x`|a;b|a b|a\nb|a\n|a\0|a%2e|{}|~|C:x|\u00e9|\u0663|\uff41".split("|"),
)
def test_nothing_else_is_taken(name):
    assert not is_safe_name(name)


@pytest.mark.parametrize("name", [201 * "a", None, 3, ["a"]])
def test_nor_long_names_and_other_values(name):
    assert not is_safe_name(name)
