"""The norm of many gradients against float64."""

import math

import pytest
import torch

from spe_dist.distributed.gradient_norm import ROW, square_sum


@pytest.mark.parametrize("shapes", [[(3,)], [(ROW,)], [(2, ROW), (ROW + 1,), (5, 7)], [(1_000, 3 * ROW)], [(), (0,)]])
def test_squares_are_summed_as_in_float64(shapes):
    torch.manual_seed(0)
    gradients = [torch.rand(shape) * 1e-3 for shape in shapes]
    expected = sum(gradient.double().square().sum() for gradient in gradients)
    found = square_sum(gradients)
    assert found.dtype == torch.float64 and found.shape == ()
    assert found.item() == pytest.approx(expected.item(), rel=2e-7)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("place", [0, ROW, -1])
def test_one_element_that_is_not_finite_shows(bad, place):
    values = torch.ones(2 * ROW + 3)
    values[place] = bad
    assert not torch.isfinite(square_sum([torch.ones(2), values]))
