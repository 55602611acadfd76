"""Each attention backend against a padded float64 reference, values and gradients."""

import pytest
import torch
from shadow import META, Shadow

from spe_dist.model import attention as attention_module
from spe_dist.model.attention import attend, attention, borders_by_place, choose_backend, plan_padding, row_keys
from spe_dist.model.dropout import combine

LENGTHS = ([5], [1, 1, 1], [3, 40, 7, 7, 128, 1, 22, 9], list(range(1, 30)))


def reference(q_THD, k_THD, v_THD, lengths):
    """One sequence at a time in float64, with nothing but matrix products and a softmax."""
    outputs = []
    for q, k, v in zip(*(x.double().split(lengths) for x in (q_THD, k_THD, v_THD)), strict=True):
        scores_HLL = torch.einsum("qhd,khd->hqk", q, k) / q.shape[-1] ** 0.5
        outputs.append(torch.einsum("hqk,khd->qhd", scores_HLL.softmax(-1), v))
    return torch.cat(outputs)


def random_inputs(lengths, n_heads=3, head_size=8, dtype=torch.float32, device="cpu"):
    generator = torch.Generator().manual_seed(0)
    shape = (sum(lengths), n_heads, head_size)
    qkv = [torch.randn(shape, generator=generator).to(device, dtype).requires_grad_() for _ in range(3)]
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0).to(device, torch.int32)
    return qkv, cu_seqlens, torch.randn(shape, generator=generator).to(device, dtype)


def compare(lengths, tolerance, dtype=torch.float32, device="cpu", head_size=8, attend=attention):
    qkv, cu_seqlens, weights = random_inputs(lengths, head_size=head_size, dtype=dtype, device=device)
    ours = attend(*qkv, cu_seqlens, max(lengths))
    our_gradients = torch.autograd.grad((ours * weights).sum(), qkv)
    plain = reference(*qkv, lengths)
    plain_gradients = torch.autograd.grad((plain * weights.double()).sum(), qkv)
    for mine, theirs in zip((ours, *our_gradients), (plain, *plain_gradients), strict=True):
        torch.testing.assert_close(mine.double(), theirs.double(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("lengths", LENGTHS, ids=len)
def test_attention_on_the_cpu_equals_the_reference_in_values_and_gradients(lengths):
    compare(lengths, 1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 3e-2), (torch.float16, 4e-3)])
def test_attention_works_in_16_bit_on_the_cpu(dtype, tolerance):
    compare([3, 40, 7, 7, 22], tolerance, dtype)


def test_large_groups_in_16_bit_on_the_cpu_equal_the_reference(monkeypatch):
    monkeypatch.setattr(attention_module, "LARGE_GROUP_TOKENS", 8)
    compare([3, 40, 7, 7, 22], 3e-2, torch.bfloat16)


def test_one_padded_group_as_on_a_gpu_equals_the_reference(monkeypatch):
    monkeypatch.setattr(attention_module, "_cut_by_length", lambda lengths: [(len(lengths), lengths[-1])])
    compare([3, 40, 7, 7, 22], 1e-5)


def test_a_layout_planned_once_gives_the_same_as_one_planned_inside():
    qkv, cu_seqlens, _ = random_inputs([4, 9, 2])
    padding = plan_padding(cu_seqlens, 9, 15, qkv[0].shape[1])
    assert torch.equal(attention(*qkv, cu_seqlens, 9, 0.0, padding), attention(*qkv, cu_seqlens, 9))


def test_layout_maps_every_head_of_a_token_to_its_own_row_and_back():
    lengths, n_heads = LENGTHS[2], 3
    _, cu_seqlens, _ = random_inputs(lengths)
    padding = plan_padding(cu_seqlens, max(lengths), sum(lengths), n_heads)
    sources = torch.arange(sum(lengths) * n_heads)
    assert torch.equal(padding.source_of_row_R[padding.row_of_source_TH], sources)
    real_rows = int(padding.real_R1.sum())
    assert real_rows == len(sources)
    assert padding.source_of_row_R.shape[0] < 1.25 * len(sources)


def test_dropout_drops_probabilities_and_keeps_their_mean():
    lengths = [16] * 8
    qkv, cu_seqlens, _ = random_inputs(lengths)
    torch.manual_seed(0)
    plain = attention(*qkv, cu_seqlens, 16)
    dropped = torch.stack([attention(*qkv, cu_seqlens, 16, 0.5) for _ in range(400)])
    assert not torch.equal(dropped[0], dropped[1])
    torch.testing.assert_close(dropped.mean(0), plain, rtol=0, atol=0.25)
    assert (dropped.mean(0) - plain).mean().abs() < 5e-3


@pytest.mark.parametrize(
    ("device", "dtype", "head_size", "word"),
    [
        ("cpu", torch.float32, 64, "cpu"),
        ("cuda", torch.float32, 64, "16-bit"),
        ("cuda", torch.float16, 20, "20"),
    ],
)
def test_the_reason_for_the_grouped_backend_is_told(device, dtype, head_size, word):
    backend = choose_backend(torch.device(device), dtype, head_size, 0.1)
    assert backend.name == "grouped"
    assert word in backend.why


@pytest.mark.parametrize("kernel", ["flash", "varlen"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_packed_kernels_are_given_what_the_reference_is(kernel, dtype):
    """Without a GPU: their arguments and gradients are torch's, what they compute is stood in for."""
    lengths = [3, 40, 7, 1, 22]
    qkv, cu_seqlens, weights = random_inputs(lengths, head_size=16, dtype=dtype)
    plain = reference(*qkv, lengths)
    expected = (plain, *torch.autograd.grad((plain * weights.double()).sum(), qkv))
    dropout_p = {"flash": 0.1, "varlen": 0.0}[kernel]  # the stand-in drops nothing
    assert choose_backend(META, dtype, 16, dropout_p).name == kernel
    with Shadow() as shadow:
        on_gpu = [x.detach().to(META).requires_grad_() for x in qkv]
        ours = attention(*on_gpu, cu_seqlens.to(META), max(lengths), dropout_p)
        gradients = torch.autograd.grad((ours * weights.to(META)).sum(), on_gpu)
        found = [shadow.read(tensor).double() for tensor in (ours, *gradients)]
    tolerance = {torch.float16: 4e-3, torch.bfloat16: 3e-2}[dtype]
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs.double(), rtol=tolerance, atol=tolerance)


def test_dropout_by_keys_of_a_sequence_is_the_same_among_any_others():
    lengths, chosen = [3, 40, 7, 1, 22, 38], [4, 1, 5]
    qkv, cu_seqlens, _ = random_inputs(lengths, head_size=16, dtype=torch.float32)
    keys_T = combine(torch.arange(sum(lengths), dtype=torch.int32), 1)
    parts = [[x.split(lengths)[i] for i in chosen] for x in (*qkv, keys_T)]

    def run(q, k, v, keys_T, borders, longest):
        padding = plan_padding(borders, longest, q.shape[0], q.shape[1])
        return attend("grouped", q, k, v, borders, longest, 0.4, padding, row_keys(keys_T, padding, q.shape[1]))

    whole = run(*qkv, keys_T, cu_seqlens, 40)
    borders = torch.tensor([0, 22, 62, 100], dtype=torch.int32)
    some = run(*map(torch.cat, parts), borders, 40)
    torch.testing.assert_close(some, torch.cat([whole.split(lengths)[i] for i in chosen]), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(whole, attention(*qkv, cu_seqlens, 40), atol=1e-2)


def test_borders_by_place_give_each_sequence_its_number_in_the_global_batch():
    borders = borders_by_place(torch.tensor([0, 3, 4, 9], dtype=torch.int32), torch.tensor([1, 2, 5]), 7)
    assert borders.tolist() == [0, 0, 3, 4, 4, 4, 9, 9] and borders.dtype == torch.int32


@pytest.mark.gpu
def test_on_a_gpu_the_packed_kernel_drops_by_the_number_of_a_sequence():
    lengths, places = [16] * 6, 40
    qkv, _, weights = random_inputs(lengths, head_size=64, dtype=torch.bfloat16, device="cuda")
    place_Q = torch.tensor([1, 2, 9, 11, 30, 39], device="cuda")
    results = []
    for chosen in (range(6), (2, 4)):
        rows = torch.cat([torch.arange(16 * i, 16 * i + 16) for i in chosen]).cuda()
        q, k, v = (x.detach()[rows].requires_grad_() for x in qkv)
        borders = 16 * torch.arange(len(chosen) + 1, dtype=torch.int32, device="cuda")
        torch.manual_seed(3)
        out = attend("flash", q, k, v, borders_by_place(borders, place_Q[list(chosen)], places), 16, 0.5, None)
        results.append([out, *torch.autograd.grad((out * weights[rows]).sum(), (q, k, v))])
    both = torch.cat([torch.arange(32, 48), torch.arange(64, 80)]).cuda()
    for whole, some in zip(*results, strict=True):
        torch.testing.assert_close(whole[both], some, rtol=2e-2, atol=2e-2)


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 4e-2), (torch.float16, 5e-3)])
def test_attention_on_a_gpu_equals_the_reference(dtype, tolerance):
    compare(LENGTHS[2], tolerance, dtype, "cuda", head_size=64)


@pytest.mark.gpu
def test_the_flash_kernel_without_dropout_equals_varlen_attn_and_with_it_has_the_same_mean():
    lengths = [16] * 8
    qkv, cu_seqlens, weights = random_inputs(lengths, head_size=64, dtype=torch.float16, device="cuda")
    plain = attention_module._varlen(*qkv, cu_seqlens, 16)
    flash = attention_module._flash(*qkv, cu_seqlens, 16, 0.0)
    torch.testing.assert_close(plain, flash, rtol=2e-3, atol=2e-3)
    dropped = torch.stack([attention_module._flash(*qkv, cu_seqlens, 16, 0.5) for _ in range(400)])
    assert (dropped.float().mean(0) - plain.float()).mean().abs() < 5e-3
    gradients = torch.autograd.grad((dropped[0] * weights).sum(), qkv)
    assert all(torch.isfinite(gradient).all() and gradient.abs().sum() > 0 for gradient in gradients)
