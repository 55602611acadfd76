"""Dropout that is cheap on a CPU.

torch draws a CPU's dropout mask number by number in one thread, some 6% of a training step on one core. Four 16-bit
numbers from each 64-bit draw halve that. The probability is rounded to 1/65,536 and the scale follows the rounded
value, so the mean is exact. Compiled layers and GPUs use torch's own dropout, which is one kernel there.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spe_dist.model.devices import is_gpu

STEPS = 1 << 16  # values of a 16-bit number
DRAWS_PER_NUMBER = 4  # 16-bit numbers in a 64-bit one


class _CpuDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        dropped_steps = round(p * STEPS)
        words = torch.empty(-(-x.numel() // DRAWS_PER_NUMBER), dtype=torch.int64).random_(-(2**63), None)
        draws = words.view(torch.int16)[: x.numel()].view(x.shape)
        scale = STEPS / (STEPS - dropped_steps)
        kept = draws.ge_(dropped_steps - STEPS // 2)  # 0 and 1 in place: torch is many times slower at booleans
        factor = kept.to(x.dtype).mul_(scale)
        ctx.save_for_backward(factor)
        return x * factor

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.saved_tensors
        return grad * factor, None


def dropout(x: Tensor, p: float) -> Tensor:
    """Zeroes each element with probability p and divides the others by 1 - p; seeded by torch's generator."""
    if not 0.0 < p < 1.0 or torch.compiler.is_compiling():
        return F.dropout(x, p)
    if is_gpu(x.device):
        return torch.native_dropout(x, p, True)[0]  # what F.dropout comes to on CUDA; on `meta` it takes another way
    return _CpuDropout.apply(x, p)


class Dropout(nn.Module):
    """nn.Dropout with the draw above."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p) if self.training and self.p > 0 else x

    def extra_repr(self) -> str:
        return f"p={self.p}"
