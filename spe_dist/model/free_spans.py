"""Maxima of the span encoder's windows for any spans of a batch, overlapping ones too: what `SpanEncoder` gives for
copies of their words, without copying a word (METHOD Network, Span encoder).

A span's maximum is that over its windows, and a window is a sum of tap products, which are computed once for every
word. A span of few words sums its own windows. The windows of a longer one are of three kinds, which it shares with
other spans: those that reach over its start depend on the start alone, those that reach over its end on the end
alone, and those in between on neither. For the last a table of maxima over 1, 2, 4, ... neighbouring windows answers
each span by two look-ups. So n entities with n^2 / 2 spans between them cost n^2 look-ups, however long the spans.

Equal maxima of different windows share the gradient, in parts that need not be equal.

Legend of the shape suffixes:
    W words, S spans, N window rows, K taps of a kernel, C filters (of one kernel, or of all kernels after the sum),
    U distinct starts or ends
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spe_dist.model.devices import send
from spe_dist.model.segments import segment_max

DIRECT_WORDS = 6  # spans of fewer words sum their own windows


@dataclass(frozen=True)
class WordTables:
    """Tap products of all words of a batch, for each kernel; made by `SpanEncoder.word_tables`."""

    kernels: Sequence[Tensor]  # [W K + 1, C] each: product of word w and tap k in row w K + k, the bias in the last
    widths: Sequence[int]  # K of each kernel
    n_words: int


@dataclass(frozen=True)
class _Rows:
    """Windows: tap 0 stands at word `first_N`; words before `low_N` and from `high_N` on count as zeros."""

    first_N: Tensor
    low_N: Tensor
    high_N: Tensor

    def __len__(self) -> int:
        return self.first_N.shape[0]


@dataclass(frozen=True)
class _Plan:
    """What has to be looked up for some spans; shapes are known to the host, the tensors lie where the tables do."""

    taps: list[tuple[Tensor, Tensor]]  # of each kernel: rows of its table, and where each window's begin among them
    parts: list[int]  # windows of the short spans, then those at starts, at ends and inside of the long ones
    short_rows_S: Tensor  # windows of each short span
    short_of_N: Tensor  # the short span of each of its windows
    start_of_L: Tensor  # index into U of each long span's start
    end_of_L: Tensor
    levels: list[Tensor]  # for 1, 2, 4, ... windows: the two rows of maxima that cover a span, of all such spans
    long_of_level_L: Tensor  # where each long span stands in `levels` joined
    place_S: Tensor  # where each span stands among the short ones followed by the long ones

    def send(self, device: torch.device) -> _Plan:
        """The same on the device, in one copy that nothing waits for."""
        kernels = len(self.taps)
        fields = [
            self.short_rows_S,
            self.short_of_N,
            self.start_of_L,
            self.end_of_L,
            self.long_of_level_L,
            self.place_S,
        ]
        sent = iter(send([*itertools.chain(*self.taps), *fields, *self.levels], device))
        taps = [(next(sent), next(sent)) for _ in range(kernels)]
        short_rows_S, short_of_N, start_of_L, end_of_L, long_of_level_L, place_S = itertools.islice(sent, len(fields))
        return _Plan(
            taps, self.parts, short_rows_S, short_of_N, start_of_L, end_of_L, list(sent), long_of_level_L, place_S
        )


def span_maxima(tables: WordTables, start_S: Tensor, end_S: Tensor) -> Tensor:
    """[S, C]: maximum after GELU over the windows of each span of words start..end, which may be empty.

    The spans are on the CPU. What depends on their number and lengths is worked out there, so that a GPU is sent what
    to look up and is never asked.
    """
    plan = _plan(tables, start_S, end_S).send(tables.kernels[0].device)
    values_NC = _window_values(tables, plan)
    n_short, n_long = plan.short_rows_S.shape[0], plan.start_of_L.shape[0]
    if n_long == 0:
        return segment_max(values_NC, plan.short_of_N, plan.short_rows_S)
    short_NC, at_start_NC, at_end_NC, inner_WC = values_NC.split(plan.parts)
    widest = max(tables.widths)
    at_start_UC = at_start_NC.unflatten(0, (-1, widest)).amax(1)
    at_end_UC = at_end_NC.unflatten(0, (-1, widest)).amax(1)
    edges_LC = torch.maximum(at_start_UC.index_select(0, plan.start_of_L), at_end_UC.index_select(0, plan.end_of_L))
    long_LC = torch.maximum(edges_LC, _range_max(inner_WC, plan))
    if n_short == 0:
        return long_LC
    short_SC = segment_max(short_NC, plan.short_of_N, plan.short_rows_S)
    return torch.cat([short_SC, long_LC]).index_select(0, plan.place_S)


def _plan(tables: WordTables, start_S: Tensor, end_S: Tensor) -> _Plan:
    widest = max(tables.widths)
    width_S = end_S - start_S
    is_long_S = width_S >= max(DIRECT_WORDS, widest)
    short, long = torch.nonzero(~is_long_S).squeeze(1), torch.nonzero(is_long_S).squeeze(1)
    short_rows_S = width_S[short] + widest
    rows = [_direct_rows(start_S[short], end_S[short], short_rows_S, widest)]
    start_L, end_L = start_S[long], end_S[long]
    starts_U, start_of_L = torch.unique(start_L, return_inverse=True)
    ends_U, end_of_L = torch.unique(end_L, return_inverse=True)
    if long.shape[0] > 0:
        rows += [_edge_rows(starts_U, "start", widest), _edge_rows(ends_U, "end", widest), _inner_rows(tables.n_words)]
    levels, long_of_level_L = _levels(start_L, end_L - widest + 1)
    place_S = torch.empty_like(start_S)
    place_S[torch.cat([short, long])] = torch.arange(start_S.shape[0])
    joined = _join(rows)
    return _Plan(
        [_taps(joined, n_taps, tables.n_words) for n_taps in tables.widths],
        [len(part) for part in rows],
        short_rows_S,
        _owner(short_rows_S, len(rows[0])),
        start_of_L,
        end_of_L,
        levels,
        long_of_level_L,
        place_S,
    )


def _direct_rows(start_S: Tensor, end_S: Tensor, lengths_S: Tensor, widest: int) -> _Rows:
    """All windows of each span, and one of zeros."""
    n_rows = int(lengths_S.sum())
    span_N = _owner(lengths_S, n_rows)
    before_S = torch.cumsum(lengths_S, 0) - lengths_S
    offset_N = torch.arange(n_rows) - before_S[span_N]
    return _Rows(start_S[span_N] - (widest - 1) + offset_N, start_S[span_N], end_S[span_N])


def _owner(lengths_S: Tensor, n_rows: int) -> Tensor:
    return torch.repeat_interleave(torch.arange(lengths_S.shape[0]), lengths_S, output_size=n_rows)


def _edge_rows(word_U: Tensor, edge: str, widest: int) -> _Rows:
    """The `widest` windows that end in or before a span's first words, or begin in or behind its last ones."""
    offset = torch.arange(widest)
    if edge == "start":
        first_UK = word_U[:, None] - widest + offset
        low_UK, high_UK = word_U[:, None].expand_as(first_UK), word_U[:, None].expand_as(first_UK) + widest
    else:
        first_UK = word_U[:, None] - widest + 1 + offset
        low_UK, high_UK = word_U[:, None].expand_as(first_UK) - widest + 1, word_U[:, None].expand_as(first_UK)
    return _Rows(first_UK.flatten(), low_UK.flatten(), high_UK.flatten())


def _inner_rows(n_words: int) -> _Rows:
    """The window that begins at each word. Those that leave their sequence are never asked for."""
    word_W = torch.arange(n_words)
    return _Rows(word_W, word_W, torch.full_like(word_W, n_words))


def _join(parts: Sequence[_Rows]) -> _Rows:
    return _Rows(
        torch.cat([part.first_N for part in parts]),
        torch.cat([part.low_N for part in parts]),
        torch.cat([part.high_N for part in parts]),
    )


def _taps(rows: _Rows, n_taps: int, n_words: int) -> tuple[Tensor, Tensor]:
    """Rows of a kernel's table whose sums are the windows' values, and where each window's begin."""
    tap_K = torch.arange(n_taps + 1)
    word_NK = rows.first_N[:, None] + tap_K
    index_NK = word_NK * n_taps + tap_K
    index_NK[:, n_taps] = n_words * n_taps  # the bias
    used_NK = (word_NK >= rows.low_N[:, None]) & (word_NK < rows.high_N[:, None])
    used_NK[:, n_taps] = True
    counts_N = used_NK.sum(1)
    return index_NK[used_NK], torch.cumsum(counts_N, 0) - counts_N


def _levels(first_L: Tensor, end_L: Tensor) -> tuple[list[Tensor], Tensor]:
    """For each power of two up to the longest range first..end: the first rows of the two that cover such ranges; and
    where each range stands among all of them. Ranges are not empty.
    """
    level_L = torch.frexp((end_L - first_L).double()).exponent.long() - 1  # floor(log2(length)), exactly
    order_L = torch.argsort(level_L)
    levels = []
    for level, members in enumerate(order_L.split(torch.bincount(level_L).tolist())):
        levels.append(torch.cat([first_L[members], end_L[members] - (1 << level)]))
    return levels, torch.argsort(order_L)


def _window_values(tables: WordTables, plan: _Plan) -> Tensor:
    """[N, C]: GELU of each window's sum of tap products and bias, all kernels side by side."""
    sums = [
        F.embedding_bag(index, table, starts_N, mode="sum")
        for table, (index, starts_N) in zip(tables.kernels, plan.taps, strict=True)
    ]
    return F.gelu(torch.cat(sums, dim=1))


class _LargerNeighbour(torch.autograd.Function):
    """Row n: the larger of rows n and n + distance; of equal ones the first has the gradient.

    torch.maximum would split it, with boolean masks that cost a CPU more than all else here.
    """

    @staticmethod
    def forward(ctx: Any, values_NC: Tensor, distance: int) -> Tensor:
        first_NC, second_NC = values_NC[:-distance], values_NC[distance:]
        ctx.distance = distance
        ctx.save_for_backward(first_NC.clone().ge_(second_NC))
        return torch.maximum(first_NC, second_NC)

    @staticmethod
    def backward(ctx: Any, grad_NC: Tensor) -> tuple[Tensor, None]:
        (is_first_NC,) = ctx.saved_tensors
        of_first_NC = grad_NC * is_first_NC
        of_values_NC = F.pad(of_first_NC, (0, 0, 0, ctx.distance))
        of_values_NC[ctx.distance :].add_(grad_NC).sub_(of_first_NC)
        return of_values_NC, None


def _range_max(values_WC: Tensor, plan: _Plan) -> Tensor:
    """[L, C]: maxima over each long span's inner windows: the larger of two overlapping powers of two."""
    maxima, table_NC = [], values_WC
    for level, rows in enumerate(plan.levels):
        if level > 0:
            table_NC = _LargerNeighbour.apply(table_NC, 1 << level - 1)  # over 1 << level rows
        if rows.shape[0] > 0:
            maxima.append(torch.maximum(*table_NC.index_select(0, rows).chunk(2)))
    return torch.cat(maxima).index_select(0, plan.long_of_level_L)
