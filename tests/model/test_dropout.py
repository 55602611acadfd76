"""Dropout by torch's generator on a CPU, and by keys: rate, scale, gradient, what a mask depends on."""

import pytest
import torch

from spe_dist.data.batches.dropout_keys import DropoutKeys
from spe_dist.model.dropout import Dropout, _compiled, combine, dropout, token_keys


def keys_of(n_rows, seed=0):
    """What `n_rows` neighbouring places of a batch have, which differ least."""
    return DropoutKeys.of(seed, 0, torch.arange(n_rows).numpy(), n_rows).key_Q


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(1001, 301), (3,), (0, 4)])
@pytest.mark.parametrize("by_keys", [False, True])
def test_elements_are_dropped_at_the_rate_and_the_rest_scaled(dtype, shape, by_keys):
    torch.manual_seed(0)
    keys = keys_of(shape[0] if len(shape) > 1 else 1) if by_keys else None
    out = dropout(torch.ones(shape, dtype=dtype), 0.1, keys)
    assert out.shape == shape and out.dtype == dtype
    kept = out[out != 0].float()
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / 0.9), rtol=5e-3, atol=0)
    if out.numel() > 10_000:
        assert (out == 0).float().mean().item() == pytest.approx(0.1, abs=3e-3)
        assert (out == 0).float().mean(0).std() < 0.02  # no column is dropped more than others
        assert (out == 0).float().mean(1).std() < 0.02


@pytest.mark.parametrize("keys", [None, keys_of(50)])
@pytest.mark.parametrize("columns", [30, 31])
def test_the_gradient_takes_the_mask_of_the_forward_pass(keys, columns):
    x = torch.randn(50, columns, requires_grad=True)
    out = dropout(x, 0.3, keys)
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


@pytest.mark.parametrize("columns", [64, 7])
def test_a_row_by_keys_is_the_same_among_any_others_and_in_any_shape(columns):
    keys, x = keys_of(60), torch.randn(60, columns)
    whole = dropout(x, 0.5, keys, site=3)
    chosen = torch.tensor([41, 3, 7])
    torch.manual_seed(1)
    assert torch.equal(dropout(x[chosen], 0.5, keys[chosen], site=3), whole[chosen])
    assert torch.equal(dropout(x.view(4, 15, columns), 0.5, keys, site=3), whole.view(4, 15, columns))
    wider = dropout(torch.nn.functional.pad(x, (0, 5)), 0.5, keys, site=3)
    assert torch.equal(wider[:, :columns], whole)


def test_masks_of_neighbouring_rows_columns_sites_layers_seeds_and_steps_are_independent():
    def mask(keys, site=0):
        return (dropout(torch.ones(400, 512), 0.5, keys, site) == 0).float() - 0.5

    keys = keys_of(400)
    first = mask(keys)
    others = {
        "site": mask(keys, 1),
        "layer": mask(combine(keys, 0)),
        "next layer": mask(combine(keys, 1)),
        "seed": mask(keys_of(400, seed=1)),
        "step": mask(DropoutKeys.of(0, 1, torch.arange(400).numpy(), 400).key_Q),
        "row": first.roll(1, 0),
        "column": first.roll(1, 1),
        "pair of columns": first.roll(2, 1),
    }
    limit = 5 * (1 / first.numel()) ** 0.5 / 4  # five standard deviations of a mean of products of +-1/2
    assert {name: (first * other).mean().item() for name, other in others.items() if name} == {
        name: pytest.approx(0, abs=limit) for name in others
    }
    together = (first[:, ::2] * first[:, 1::2] * first.roll(1, 0)[:, ::2] * first.roll(1, 0)[:, 1::2]).mean().item()
    assert together == pytest.approx(0, abs=5 * (2 / first.numel()) ** 0.5 / 16)


@pytest.mark.parametrize("shape", [(40, 64), (40, 7), (5, 8, 6)])
def test_the_form_for_compilers_drops_the_same_elements(shape):
    x, keys = torch.randn(shape), keys_of(40)
    assert torch.equal(_compiled(x, 0.3, keys, 2), dropout(x, 0.3, keys, 2))


def test_tokens_have_keys_by_their_sequence_and_place():
    keys, borders = keys_of(3), torch.tensor([0, 2, 2, 5], dtype=torch.int32)
    found = token_keys(keys, borders, torch.tensor([0, 1, 0, 1, 2]))
    assert torch.equal(
        found, torch.stack([combine(keys[q], place) for q, place in ((0, 0), (0, 1), *((2, n) for n in range(3)))])
    )
    assert len(set(found.tolist())) == 5
