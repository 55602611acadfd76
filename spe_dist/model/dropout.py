"""Dropout by torch's generator, or by keys of the rows, so that a mask depends on nothing but them.

By the generator: torch draws a CPU's mask number by number in one thread, some 6% of a training step on one core. Four
16-bit numbers from each 64-bit draw halve that. Compiled layers and GPUs use torch's own dropout, which is one kernel
there.

By keys: each row has a 32-bit key (`combine` makes them: of a sequence, a token in it, a span), each dropout of the
network a `site`, and two elements share 32 bits: a hash of key, site and column (multiplications and shifts of
murmur3's finaliser). So it does not matter with which other rows, on which rank a row is computed. A CPU needs about
half of the time of the draw above, a GPU ten small kernels in place of one, unless they are compiled.

Either way the probability is rounded to 1/65,536 on a CPU, and the scale follows the rounded value: the mean is exact.

Legend of the shape suffixes:
    N rows, D columns, C = D / 2 rounded up, columns of 32 bits, Q sequences, T tokens
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spe_dist.model.devices import is_gpu

STEPS = 1 << 16  # values of a 16-bit number
DRAWS_PER_NUMBER = 4  # 16-bit numbers in a 64-bit one

_GOLDEN, _FACTOR_1, _FACTOR_2 = (number - (1 << 32) for number in (0x9E3779B9, 0x85EBCA6B, 0xC2B2AE35))


def combine(keys: Tensor, numbers: Tensor | int) -> Tensor:
    """int32 keys that depend on `keys` (int32) and `numbers` (integers), broadcast."""
    if isinstance(numbers, Tensor):
        numbers = numbers.to(torch.int32)
    x = keys + (numbers + 1) * _GOLDEN if isinstance(numbers, Tensor) else keys + _wrap((numbers + 1) * _GOLDEN)
    x = (x ^ (x >> 16)) * _FACTOR_1
    x = (x ^ (x >> 13)) * _FACTOR_2
    return x ^ (x >> 16)


def _wrap(number: int) -> int:
    """The int32 that has these lowest 32 bits."""
    return (number + (1 << 31)) % (1 << 32) - (1 << 31)


def token_keys(key_Q: Tensor, cu_seqlens_Q1: Tensor, positions_T: Tensor) -> Tensor:
    """int32 [T]: a key of each token, by its sequence and its place there."""
    key_T = torch.repeat_interleave(key_Q, cu_seqlens_Q1.diff(), output_size=positions_T.shape[0])
    return combine(key_T, positions_T)


def _columns(n_columns: int, site: int, device: torch.device) -> Tensor:
    """int32 [C]: what stands for pairs of columns at a site."""
    return combine(torch.arange(n_columns, dtype=torch.int32, device=device), site)


_kept_columns = functools.lru_cache(maxsize=256)(_columns)


def _draws(x: Tensor, keys_N: Tensor, site: int) -> Tensor:
    """int16 [N, D], whose memory is free to be written to."""
    n_columns = x.shape[-1]
    bits_NC = keys_N.reshape(-1, 1) ^ _kept_columns(-(-n_columns // 2), site, x.device)
    bits_NC.mul_(_FACTOR_1)
    bits_NC.bitwise_xor_(bits_NC >> 15)
    bits_NC.mul_(_FACTOR_2)
    return bits_NC.view(torch.int16)[:, :n_columns]


def _compiled_draws(x: Tensor, keys_N: Tensor, site: int) -> Tensor:
    """The same as int32, element by element, which a compiler makes one with what is around it."""
    column_D = torch.arange(x.shape[-1], dtype=torch.int32, device=x.device)
    bits_ND = keys_N.reshape(-1, 1) ^ combine(column_D >> 1, site)
    bits_ND = bits_ND * _FACTOR_1
    bits_ND = (bits_ND ^ (bits_ND >> 15)) * _FACTOR_2
    return (bits_ND << (16 * (1 - (column_D & 1)))) >> 16


class _FastDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float, keys_N: Tensor | None, site: int) -> Tensor:
        dropped_steps = round(p * STEPS)
        if keys_N is None:
            words = torch.empty(-(-x.numel() // DRAWS_PER_NUMBER), dtype=torch.int64).random_(-(2**63), None)
            draws = words.view(torch.int16)[: x.numel()].view(x.shape)
        else:
            draws = _draws(x, keys_N, site).view_as(x) if x.shape[-1] % 2 == 0 else _draws(x, keys_N, site)
        scale = STEPS / (STEPS - dropped_steps)
        kept = draws.ge_(dropped_steps - STEPS // 2)  # 0 and 1 in place: torch is many times slower at booleans
        factor = kept.to(x.dtype).mul_(scale).reshape(x.shape)
        ctx.save_for_backward(factor)
        return x * factor

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (factor,) = ctx.saved_tensors
        return grad * factor, None, None, None


def dropout(x: Tensor, p: float, keys_N: Tensor | None = None, site: int = 0) -> Tensor:
    """Zeroes each element with probability p and divides the others by 1 - p.

    Seeded by torch's generator, or where `keys_N` are given (int32, one for each row of the last dimension) by them,
    the site and the column.
    """
    if not 0.0 < p < 1.0:
        return F.dropout(x, p)
    if torch.compiler.is_compiling():
        return F.dropout(x, p) if keys_N is None else _compiled(x, p, keys_N, site)
    if keys_N is None and is_gpu(x.device):
        return torch.native_dropout(x, p, True)[0]  # what F.dropout comes to on CUDA; on `meta` it takes another way
    return _FastDropout.apply(x, p, keys_N, site)


def _compiled(x: Tensor, p: float, keys_N: Tensor, site: int) -> Tensor:
    dropped_steps = round(p * STEPS)
    is_kept = _compiled_draws(x, keys_N, site).view(x.shape) >= dropped_steps - STEPS // 2
    return x * torch.where(is_kept, STEPS / (STEPS - dropped_steps), 0.0).to(x.dtype)


class Dropout(nn.Module):
    """nn.Dropout with the draws above. `site` tells it from others that are given the same keys."""

    def __init__(self, p: float, site: int = 0):
        super().__init__()
        self.p = p
        self.site = site

    def forward(self, x: Tensor, keys_N: Tensor | None = None) -> Tensor:
        return dropout(x, self.p, keys_N, self.site) if self.training and self.p > 0 else x

    def extra_repr(self) -> str:
        return f"p={self.p}"
