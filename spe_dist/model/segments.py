"""Maximum over runs of rows.

Legend of the shape suffixes:
    N rows, S runs (spans), C columns
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def segment_max(values_NC: Tensor, span_N: Tensor, lengths_S: Tensor) -> Tensor:
    """Maximum over each run of rows, [S, C]; runs are not empty. Equal maxima share the gradient evenly."""
    return _SegmentMax.apply(values_NC, span_N, lengths_S)


class _SegmentMax(torch.autograd.Function):
    """segment_reduce with its own backward: torch's does not divide negative gradients among equal maxima."""

    @staticmethod
    def forward(ctx: Any, values_NC: Tensor, span_N: Tensor, lengths_S: Tensor) -> Tensor:
        maxima_SC = torch.segment_reduce(values_NC, "max", lengths=lengths_S, axis=0, unsafe=True)
        ctx.save_for_backward(values_NC, maxima_SC, span_N, lengths_S)
        return maxima_SC

    @staticmethod
    def backward(ctx: Any, grad_SC: Tensor) -> tuple[Tensor, None, None]:
        values_NC, maxima_SC, span_N, lengths_S = ctx.saved_tensors
        is_maximum_NC = (values_NC == maxima_SC.index_select(0, span_N)).to(grad_SC.dtype)
        ties_SC = torch.segment_reduce(is_maximum_NC, "sum", lengths=lengths_S, axis=0, unsafe=True)
        return (grad_SC / ties_SC).index_select(0, span_N).mul_(is_maximum_NC), None, None
