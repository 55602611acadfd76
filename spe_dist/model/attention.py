"""Self-attention inside each sequence of a packed batch, behind one function.

Legend of the shape suffixes:
    Q sequences, T tokens, H heads, D width of a head, G sequences of a group, L longest of a group,
    R = sum of G H L over the groups, padded rows of single heads

Backends (`choose_backend` picks one and says why):
    varlen   torch.nn.attention.varlen.varlen_attn: CUDA, 16 bit, no dropout
    flash    the kernel beneath it, aten._flash_attention_forward, which has dropout and a backward: CUDA, 16 bit
    grouped  padded scaled_dot_product_attention over groups of similar length: everything else, the CPU among it

BERT drops attention probabilities, and METHOD asks for dropout 0.1 throughout. varlen_attn has no dropout (torch 2.10
to 2.13 fix it at zero), so training goes through the kernel that varlen_attn itself calls.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spe_dist.model.devices import autocast, has_packed_kernels, is_gpu
from spe_dist.model.dropout import combine, dropout

GROUP_SLACK = 1.3  # a group's longest sequence in tokens, divided by its shortest, at most (plus GROUP_SLACK_TOKENS)
GROUP_SLACK_TOKENS = 4
# Padded tokens from which a group's 16-bit products on a CPU are worth the kernel that oneDNN makes for each shape.
LARGE_GROUP_TOKENS = 1024


@dataclass(frozen=True)
class Backend:
    """The chosen way to attend, and the reason in words."""

    name: str
    why: str


@functools.cache
def choose_backend(device: torch.device, dtype: torch.dtype, head_size: int, dropout_p: float) -> Backend:
    """Picks the backend for tensors of this kind; the only place where that is decided."""
    if not is_gpu(device):
        return Backend("grouped", f"varlen kernels have no backward on {device.type}; groups of similar length do")
    if dtype not in (torch.float16, torch.bfloat16):
        return Backend("grouped", f"varlen kernels take 16-bit types only, this is {dtype}")
    if head_size > 256 or head_size % 8:
        return Backend("grouped", f"varlen kernels take heads of 8, 16, ... 256 dims, this has {head_size}")
    if not has_packed_kernels(device):
        return Backend("grouped", "varlen kernels need an Ampere GPU or newer")
    if dropout_p > 0:
        return Backend("flash", "packed, with dropout of attention probabilities (varlen_attn has none)")
    if importlib.util.find_spec("torch.nn.attention.varlen") is None:
        return Backend("flash", f"torch {torch.__version__} has no varlen_attn")
    return Backend("varlen", "packed, no dropout wanted")


@dataclass(frozen=True)
class Group:
    """Sequences of similar length, padded to the longest."""

    n_sequences: int
    longest: int
    mask_G11L: Tensor | None  # bool, True at real tokens; None where no sequence is padded


@dataclass(frozen=True)
class PaddingPlan:
    """Where each token's heads stand in the padded rows [G, H, L] of all groups, one group behind the other."""

    groups: list[Group]
    source_of_row_R: Tensor  # row of [T H, D]; padding rows point at some token
    row_of_source_TH: Tensor
    real_R1: Tensor | None  # float32, 0 at padding rows, else 1; None where there are none


def plan_padding(cu_seqlens_Q1: Tensor, max_seqlen: int, n_tokens: int, n_heads: int) -> PaddingPlan:
    """Groups sequences by length. On a GPU all are one group, so that nothing waits for the lengths."""
    device = cu_seqlens_Q1.device
    starts_Q = cu_seqlens_Q1[:-1].long()
    lengths_Q = cu_seqlens_Q1[1:].long() - starts_Q
    n_sequences = starts_Q.shape[0]
    if device.type == "cpu":
        sorted_lengths_Q, order_Q = torch.sort(lengths_Q, stable=True)
        sizes = _cut_by_length(sorted_lengths_Q.tolist())
    else:
        sorted_lengths_Q, order_Q = lengths_Q, torch.arange(n_sequences, device=device)
        sizes = [(n_sequences, max_seqlen)]
    head_H1 = torch.arange(n_heads, device=device)[:, None]
    groups, sources, reals = [], [], []
    first_row_Q, longest_Q = torch.empty_like(starts_Q), torch.empty_like(starts_Q)
    first, row = 0, 0
    for size, longest in sizes:
        members_G = order_Q[first : first + size]
        offsets_L = torch.arange(longest, device=device)
        real_GL = offsets_L < sorted_lengths_Q[first : first + size, None]
        token_GL = starts_Q[members_G, None] + torch.where(real_GL, offsets_L, 0)
        sources.append((token_GL[:, None] * n_heads + head_H1).flatten())
        reals.append(real_GL[:, None].expand(-1, n_heads, -1).flatten())
        padded = device.type != "cpu" or not bool(real_GL.all())
        groups.append(Group(size, longest, real_GL[:, None, None, :] if padded else None))
        first_row_Q[members_G] = row + n_heads * longest * torch.arange(size, device=device)
        longest_Q[members_G] = longest
        first, row = first + size, row + size * n_heads * longest
    has_padding = any(group.mask_G11L is not None for group in groups)
    sequence_T = torch.repeat_interleave(torch.arange(n_sequences, device=device), lengths_Q, output_size=n_tokens)
    row_T = (first_row_Q - starts_Q)[sequence_T] + torch.arange(n_tokens, device=device)
    row_TH = row_T[:, None] + longest_Q[sequence_T, None] * head_H1.T
    real_R1 = torch.cat(reals)[:, None].float() if has_padding else None
    return PaddingPlan(groups, torch.cat(sources), row_TH.flatten(), real_R1)


def _cut_by_length(sorted_lengths: list[int]) -> list[tuple[int, int]]:
    """Cuts ascending lengths into (number of sequences, longest) so that little of each group is padding."""
    sizes: list[tuple[int, int]] = []
    first = 0
    for i, length in enumerate(sorted_lengths):
        if length > sorted_lengths[first] * GROUP_SLACK + GROUP_SLACK_TOKENS:
            sizes.append((i - first, sorted_lengths[i - 1]))
            first = i
    sizes.append((len(sorted_lengths) - first, sorted_lengths[-1]))
    return sizes


class _Pad(torch.autograd.Function):
    """Heads of tokens to padded rows. Both directions only gather, which is fast and has one order of summation."""

    @staticmethod
    def forward(ctx: Any, x_THD: Tensor, padding: PaddingPlan) -> Tensor:
        ctx.padding, ctx.n_heads = padding, x_THD.shape[1]
        return x_THD.flatten(0, 1).index_select(0, padding.source_of_row_R)

    @staticmethod
    def backward(ctx: Any, grad_RD: Tensor) -> tuple[Tensor, None]:
        # Padding rows are masked as keys and unused as queries: their gradient is zero, nothing is lost.
        return grad_RD.index_select(0, ctx.padding.row_of_source_TH).unflatten(0, (-1, ctx.n_heads)), None


class _Unpad(torch.autograd.Function):
    """Padded rows back to heads of tokens."""

    @staticmethod
    def forward(ctx: Any, x_RD: Tensor, padding: PaddingPlan, n_heads: int) -> Tensor:
        ctx.padding = padding
        return x_RD.index_select(0, padding.row_of_source_TH).unflatten(0, (-1, n_heads))

    @staticmethod
    def backward(ctx: Any, grad_THD: Tensor) -> tuple[Tensor, None, None]:
        grad_RD = grad_THD.flatten(0, 1).index_select(0, ctx.padding.source_of_row_R)
        if ctx.padding.real_R1 is not None:
            grad_RD.mul_(ctx.padding.real_R1.to(grad_RD.dtype))  # on a CPU many times as fast as filling by a mask
        return grad_RD, None, None


def row_keys(token_keys_T: Tensor, padding: PaddingPlan, n_heads: int) -> Tensor:
    """int32 [R]: keys of dropout of the padded rows, by token and head."""
    key_TH = combine(token_keys_T[:, None], torch.arange(n_heads, device=token_keys_T.device))
    return key_TH.flatten().index_select(0, padding.source_of_row_R)


def _grouped(
    q_THD: Tensor,
    k_THD: Tensor,
    v_THD: Tensor,
    padding: PaddingPlan,
    dropout_p: float,
    keys_R: Tensor | None = None,
) -> Tensor:
    n_heads, head_size = q_THD.shape[1:]
    shapes = [(group.n_sequences, n_heads, group.longest, head_size) for group in padding.groups]
    row_counts = [math.prod(shape[:3]) for shape in shapes]
    q_RD, k_RD, v_RD = (_Pad.apply(x, padding).split(row_counts) for x in (q_THD, k_THD, v_THD))
    keys = [None] * len(shapes) if keys_R is None else keys_R.split(row_counts)
    outputs_RD = [
        _padded(q.view(shape), k.view(shape), v.view(shape), group.mask_G11L, dropout_p, key).flatten(0, 2)
        for group, shape, q, k, v, key in zip(padding.groups, shapes, q_RD, k_RD, v_RD, keys, strict=True)
    ]
    return _Unpad.apply(torch.cat(outputs_RD).to(q_THD.dtype), padding, n_heads)


def _padded(
    q_GHLD: Tensor,
    k_GHLD: Tensor,
    v_GHLD: Tensor,
    mask_G11L: Tensor | None,
    dropout_p: float,
    keys_R: Tensor | None = None,
) -> Tensor:
    dtype = q_GHLD.dtype
    keyed = dropout_p > 0 and keys_R is not None
    if (not keyed and q_GHLD.device.type != "cpu") or (dropout_p == 0 and dtype == torch.float32):
        return F.scaled_dot_product_attention(q_GHLD, k_GHLD, v_GHLD, mask_G11L, dropout_p)
    # On a CPU torch computes dropout step by step too, with a dearer draw, and its 16-bit kernel suits long sequences.
    if q_GHLD.device.type == "cpu" and q_GHLD.shape[0] * q_GHLD.shape[2] < LARGE_GROUP_TOKENS:
        q_GHLD, k_GHLD, v_GHLD = q_GHLD.float(), k_GHLD.float(), v_GHLD.float()
    scores_GHLL = ((q_GHLD * q_GHLD.shape[-1] ** -0.5) @ k_GHLD.transpose(2, 3)).float()
    if mask_G11L is not None:  # a sum is vectorised, in float32 without a copy, and costs nothing backwards
        scores_GHLL = scores_GHLL.add_(torch.where(mask_G11L, 0.0, -torch.inf))
    probabilities_GHLL = dropout(scores_GHLL.softmax(dim=-1), dropout_p, keys_R)
    return probabilities_GHLL.to(v_GHLD.dtype) @ v_GHLD


def borders_by_place(cu_seqlens_Q1: Tensor, place_Q: Tensor, places: int) -> Tensor:
    """Borders [places + 1] of as many sequences, all but those at `place_Q` (ascending) empty.

    FlashAttention draws the mask of a sequence by its number in the batch. Given the global batch's number, it draws
    the same mask whatever else is in the micro-batch. An empty sequence costs it next to nothing.
    """
    lengths = cu_seqlens_Q1.new_zeros(places + 1)
    lengths[1 + place_Q] = cu_seqlens_Q1.diff()
    return lengths.cumsum(0, dtype=cu_seqlens_Q1.dtype)


def _flash(q: Tensor, k: Tensor, v: Tensor, cu_seqlens_Q1: Tensor, max_seqlen: int, dropout_p: float) -> Tensor:
    return torch.ops.aten._flash_attention_forward(
        q, k, v, cu_seqlens_Q1, cu_seqlens_Q1, max_seqlen, max_seqlen, dropout_p, False, False
    )[0]


def _varlen(q: Tensor, k: Tensor, v: Tensor, cu_seqlens_Q1: Tensor, max_seqlen: int) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    out = varlen_attn(q, k, v, cu_seqlens_Q1, cu_seqlens_Q1, max_seqlen, max_seqlen)
    assert isinstance(out, Tensor)  # a tuple only where auxiliary outputs are asked for
    return out


@torch.compiler.disable  # its groups are others in each batch
def _by_groups(
    q_THD: Tensor,
    k_THD: Tensor,
    v_THD: Tensor,
    padding: PaddingPlan,
    dropout_p: float,
    keys_R: Tensor | None,
) -> Tensor:
    with autocast(q_THD.device, enabled=False):  # its steps choose their types themselves
        return _grouped(q_THD, k_THD, v_THD, padding, dropout_p, keys_R)


def attention(
    q_THD: Tensor,
    k_THD: Tensor,
    v_THD: Tensor,
    cu_seqlens_Q1: Tensor,
    max_seqlen: int,
    dropout_p: float = 0.0,
    padding: PaddingPlan | None = None,
) -> Tensor:
    """softmax(q k' / sqrt(D)) v inside each sequence, [T, H, D]; `dropout_p` drops attention probabilities.

    `padding` is `plan_padding(cu_seqlens_Q1, max_seqlen, T, H)`; a caller with several layers plans once.
    """
    backend = choose_backend(q_THD.device, q_THD.dtype, q_THD.shape[2], dropout_p).name
    if backend == "grouped":
        padding = padding or plan_padding(cu_seqlens_Q1, max_seqlen, *q_THD.shape[:2])
    return attend(backend, q_THD, k_THD, v_THD, cu_seqlens_Q1, max_seqlen, dropout_p, padding)


def attend(
    backend: str,
    q_THD: Tensor,
    k_THD: Tensor,
    v_THD: Tensor,
    cu_seqlens_Q1: Tensor,
    max_seqlen: int,
    dropout_p: float,
    padding: PaddingPlan | None,
    keys_R: Tensor | None = None,
) -> Tensor:
    """`attention` by the backend that `choose_backend` gave; `padding` where that is "grouped".

    `keys_R` (`row_keys`): what dropout is drawn from, in place of torch's generator. For "flash", whose masks come from
    the generator and the number of a sequence, give it borders with empty sequences (`borders_by_place`).

    torch.compile takes the packed kernels into its graphs and leaves them for "grouped".
    """
    if backend == "varlen":
        return _varlen(q_THD, k_THD, v_THD, cu_seqlens_Q1, max_seqlen)
    if backend == "flash":
        return _flash(q_THD, k_THD, v_THD, cu_seqlens_Q1, max_seqlen, dropout_p)
    assert padding is not None
    return _by_groups(q_THD, k_THD, v_THD, padding, dropout_p, keys_R)
