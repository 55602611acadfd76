"""What dropout of spans and pairs is drawn from: their window and where they stand in it (see `model.dropout`).

Empty spans have one vector in a batch, which all its sentences share, so their key is the step's. All keys are None
where dropout is drawn by torch's generator.

Legend of the shape suffixes: Q windows, S spans, P pairs
"""

from __future__ import annotations

import torch
from torch import Tensor

from spe_dist.extraction.joint.batch import ExtractionBatch
from spe_dist.extraction.joint.candidates import Pairs, Spans
from spe_dist.model.devices import send
from spe_dist.model.dropout import combine

# Numbers that tell the keys of spans, contexts and pairs of a window from those of its tokens.
_SPAN, _CONTEXT, _PAIR = 1 << 20, 1 << 21, 1 << 22


def span_keys(batch: ExtractionBatch, start_S: Tensor, end_S: Tensor, kind: int = _SPAN) -> Tensor | None:
    """int32 [S], on the batch's device: keys of spans start..end of W, on the CPU."""
    keys = batch.dropout_keys
    if keys is None:
        return None
    window_S = torch.searchsorted(batch.word_borders_Q1, start_S, right=True) - 1
    window_S = window_S.clamp(0, batch.n_sequences - 1)
    first_S = batch.word_borders_Q1[window_S]
    is_empty_S = (start_S == end_S).long()
    window_S, start_S, end_S, is_empty_S = send(
        [window_S, start_S - first_S, end_S - first_S, is_empty_S], batch.device
    )
    keys_S = combine(combine(combine(keys.key_Q.index_select(0, window_S), kind), start_S), end_S)
    return torch.where(is_empty_S > 0, keys.shared_key ^ kind, keys_S)


def context_keys(batch: ExtractionBatch, start_S: Tensor, end_S: Tensor) -> Tensor | None:
    """The same of L, M and R, which may have an encoder of their own."""
    return span_keys(batch, start_S, end_S, _CONTEXT)


def pair_keys(batch: ExtractionBatch, spans: Spans, pairs: Pairs) -> Tensor | None:
    """int32 [P], or [1] where there are no pairs."""
    keys = batch.dropout_keys
    if keys is None:
        return None
    if pairs.count == 0:
        return keys.key_Q[:1]
    first_P = batch.window_first_Q[pairs.window_P]
    numbers = [
        spans.start_S[pairs.first_P] - first_P,
        spans.end_S[pairs.first_P] - first_P,
        spans.start_S[pairs.second_P] - first_P,
        spans.end_S[pairs.second_P] - first_P,
    ]
    window_P, *numbers = send([pairs.window_P, *numbers], batch.device)
    keys_P = combine(keys.key_Q.index_select(0, window_P), _PAIR)
    for number_P in numbers:
        keys_P = combine(keys_P, number_P)
    return keys_P
