"""The CPU's cheap dropout: rate, scale, gradient, seed."""

import pytest
import torch

from spe_dist.model.dropout import Dropout, dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(1001, 301), (3,), (0, 4)])
def test_elements_are_dropped_at_the_rate_and_the_rest_scaled(dtype, shape):
    torch.manual_seed(0)
    out = dropout(torch.ones(shape, dtype=dtype), 0.1)
    assert out.shape == shape and out.dtype == dtype
    kept = out[out != 0].float()
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / 0.9), rtol=5e-3, atol=0)
    if out.numel() > 10_000:
        assert (out == 0).float().mean().item() == pytest.approx(0.1, abs=3e-3)
        assert (out == 0).float().mean(0).std() < 0.02  # no column is dropped more than others


def test_the_gradient_takes_the_mask_of_the_forward_pass():
    x = torch.randn(50, 30, requires_grad=True)
    out = dropout(x, 0.3)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(gradient * x, out)


def test_the_mask_follows_torchs_seed():
    masks = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        masks.append(dropout(torch.ones(1000), 0.5) == 0)
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])


def test_nothing_is_dropped_in_eval_mode_or_at_rate_zero():
    x = torch.randn(5, 5)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0).train()(x) is x
