"""Span encoder: one convolution pass over all words of a batch, then a maximum over each span (METHOD Network).

Each span counts as alone, with zeros around it. A kernel of k words has width + k - 1 windows that overlap the span;
the maximum is taken over those and over the window of zeros only, whose value is GELU(bias): so an empty span has a
value. The maximum is taken after GELU, which is not monotone below -0.75.

The work is cut so that no span is padded in the model's width: each word's vector is multiplied by every tap of a
kernel (one product), and a window's value is the sum of the taps that its words contribute. Span s of n words owns
n + k_max window rows in a flat table; tap j of its word at offset o adds to row o + k_max - 1 - j, and the last row is
left to zeros. The same rows serve all kernels: a smaller kernel has further windows of zeros, which change nothing.

Facts of the predecessor's module: padding k on both sides (the same windows), GELU, maximum, dropout, then a block of
Linear, GELU, LayerNorm, Dropout; it reads a span's words from right to left, which is a flip of the kernels.

Legend of the shape suffixes:
    W words, S spans, N window rows, K taps of a kernel, D hidden size, C filters of a kernel, H span size
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spe_dist.model.dropout import Dropout
from spe_dist.model.free_spans import WordTables, span_maxima
from spe_dist.model.heads import Mlp, initialize
from spe_dist.model.segments import segment_max


@dataclass(frozen=True)
class WindowRows:
    """The rows of a window table and the words that stand under each."""

    rows_per_span_S: Tensor  # int64: words of the span + k_max
    span_N: Tensor  # int64: the span that owns each row
    first_word_N: Tensor  # int64: word under tap 0 in row n; may lie outside of the span
    span_start_N: Tensor
    span_end_N: Tensor
    row_of_word_W: Tensor  # int64: the row to which the word's tap 0 adds
    widest: int


def window_rows(span_borders_S1: Tensor, n_words: int, widest: int) -> WindowRows:
    """Lays out the window rows of all spans; `widest` is k_max."""
    device = span_borders_S1.device
    n_spans = span_borders_S1.shape[0] - 1
    widths_S = span_borders_S1.diff()
    rows_per_span_S = widths_S + widest
    n_rows = n_words + widest * n_spans
    span_S = torch.arange(n_spans, device=device)
    span_N = torch.repeat_interleave(span_S, rows_per_span_S, output_size=n_rows)
    span_W = torch.repeat_interleave(span_S, widths_S, output_size=n_words)
    return WindowRows(
        rows_per_span_S=rows_per_span_S,
        span_N=span_N,
        first_word_N=torch.arange(n_rows, device=device) - widest * span_N - (widest - 1),
        span_start_N=span_borders_S1[span_N],
        span_end_N=span_borders_S1[span_N + 1],
        row_of_word_W=torch.arange(n_words, device=device) + widest * span_W + (widest - 1),
        widest=widest,
    )


class _SumTaps(torch.autograd.Function):
    """windows_NC[n] = sum over taps j of taps_WKC[first_word_N[n] + j, j], words outside of the span left out."""

    @staticmethod
    def forward(ctx: Any, taps_WKC: Tensor, rows: WindowRows) -> Tensor:
        ctx.rows, ctx.n_taps = rows, taps_WKC.shape[1]
        n_words, n_taps, n_filters = taps_WKC.shape
        if n_words == 0:
            return taps_WKC.new_zeros(rows.first_word_N.shape[0], n_filters)
        tap_K = torch.arange(n_taps, device=taps_WKC.device)
        word_NK = rows.first_word_N[:, None] + tap_K
        inside_NK = (word_NK >= rows.span_start_N[:, None]) & (word_NK < rows.span_end_N[:, None])
        index_NK = torch.where(inside_NK, word_NK * n_taps + tap_K, 0)
        parts_NKC = taps_WKC.reshape(-1, n_filters).index_select(0, index_NK.flatten())
        parts_NKC = parts_NKC.view(-1, n_taps, n_filters).mul_(inside_NK[:, :, None].to(parts_NKC.dtype))
        return parts_NKC.sum(1)

    @staticmethod
    def backward(ctx: Any, grad_NC: Tensor) -> tuple[Tensor, None]:
        tap_K = torch.arange(ctx.n_taps, device=grad_NC.device)
        row_WK = ctx.rows.row_of_word_W[:, None] - tap_K
        return grad_NC.index_select(0, row_WK.flatten()).view(-1, ctx.n_taps, grad_NC.shape[1]), None


class SpanConv(nn.Conv1d):
    """A Conv1d's parameters applied to window rows; value [N, C] before the activation.

    Without rows: the tap products themselves, [W K + 1, C], the bias behind them, for `WordTables`.
    """

    def __init__(self, hidden_size: int, n_filters: int, width: int):
        super().__init__(hidden_size, n_filters, width)

    def forward(self, word_states_WD: Tensor, rows: WindowRows | None = None) -> Tensor:  # type: ignore[override]
        n_filters, hidden_size, n_taps = self.weight.shape
        taps_D = self.weight.permute(2, 0, 1).reshape(n_taps * n_filters, hidden_size)
        taps_WKC = F.linear(word_states_WD, taps_D).view(-1, n_taps, n_filters)
        if rows is None:
            return torch.cat([taps_WKC.flatten(0, 1), self.bias.unsqueeze(0)])  # type: ignore[union-attr]
        return _SumTaps.apply(taps_WKC, rows) + self.bias


class SpanEncoder(nn.Module):
    """Span vectors from word states: convolution, GELU, maximum, dropout, MLP."""

    def __init__(
        self,
        hidden_size: int,
        kernel_widths: Sequence[int],
        n_filters: int,
        span_size: int,
        dropout: float,
        kernels: str = "auto",
    ):
        super().__init__()
        self.conv_layers = nn.ModuleList(SpanConv(hidden_size, n_filters, width) for width in kernel_widths)
        self.kernel_widths = tuple(kernel_widths)
        self.widest = max(kernel_widths)
        self.dropout = Dropout(dropout)
        self.mlp = Mlp(n_filters * len(kernel_widths), span_size, dropout, kernels, site=1)

    def draw(self) -> None:
        """New start values from torch's generator."""
        for conv in self.conv_layers:
            conv.reset_parameters()  # type: ignore[operator]
        self.mlp.apply(initialize)

    def forward(self, word_states_WD: Tensor, span_borders_S1: Tensor, keys_S: Tensor | None = None) -> Tensor:
        """[S, H]; span s is words span_borders_S1[s] to span_borders_S1[s + 1], possibly none.

        `keys_S`, here and below: of dropout, see `Dropout`.
        """
        rows = window_rows(span_borders_S1, word_states_WD.shape[0], self.widest)
        windows_NC = F.gelu(torch.cat([conv(word_states_WD, rows) for conv in self.conv_layers], dim=1))
        maxima_SC = segment_max(windows_NC, rows.span_N, rows.rows_per_span_S)
        return self.mlp(self.dropout(maxima_SC, keys_S), keys_S)

    def word_tables(self, word_states_WD: Tensor) -> WordTables:
        """What `free_spans` needs of the words: the large products, once for each word."""
        tables = [conv(word_states_WD) for conv in self.conv_layers]
        return WordTables(tables, self.kernel_widths, word_states_WD.shape[0])

    def free_spans(self, tables: WordTables, start_S: Tensor, end_S: Tensor, keys_S: Tensor | None = None) -> Tensor:
        """[S, H], S > 0: vectors of any spans start..end of the words, which may be empty, overlap and repeat.

        The tables may be on a GPU, the spans are on the CPU.
        """
        return self.mlp(self.dropout(span_maxima(tables, start_S, end_S), keys_S), keys_S)
