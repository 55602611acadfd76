"""Span pair encoder: attention over the five span vectors of a sequence (paper 3.1, METHOD Network).

    e_j = v . tanh(W_h h_j + W_cls h_cls + W_p [p_j^s1 ; p_j^s2]),   h_p = sum_j softmax(e)_j h_j

Facts of the predecessor's module that this one can represent: all four maps are without bias; one table of 7 rows
(relative positions -3..3) serves s1 and s2, their embeddings concatenated in that order; the weighted sum is of the
span vectors themselves, with no scaling of the scores, and is followed by dropout; the activation is GELU and h_cls
the tanh pooler output.

Legend of the shape suffixes:
    Q sequences (or P span pairs of them), F = 5 spans L, s1, M, s2, R, S spans, D hidden size, H span size,
    A attention size
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spe_dist.model.dropout import Dropout
from spe_dist.model.heads import initialize

POSITIONS_TO_S1 = (-1, 0, 1, 2, 3)
POSITIONS_TO_S2 = (-3, -2, -1, 0, 1)
FARTHEST = 3


class PairEncoder(nn.Module):
    """One vector of a pair of spans and its three contexts: attention over five span vectors (METHOD, Network)."""

    def __init__(
        self,
        hidden_size: int,
        span_size: int,
        attention_size: int,
        position_size: int,
        activation: Literal["tanh", "gelu"],
        dropout: float,
    ):
        super().__init__()
        self.position_embedding = nn.Embedding(2 * FARTHEST + 1, position_size)
        self.input_linear = nn.Linear(span_size, attention_size, bias=False)
        self.query_linear = nn.Linear(hidden_size, attention_size, bias=False)
        self.feature_linear = nn.Linear(2 * position_size, attention_size, bias=False)
        self.score_linear = nn.Linear(attention_size, 1, bias=False)
        self.dropout = Dropout(dropout)
        self.activation: Callable[[Tensor], Tensor] = torch.tanh if activation == "tanh" else F.gelu
        rows_F2 = torch.tensor([POSITIONS_TO_S1, POSITIONS_TO_S2]).T + FARTHEST
        self.register_buffer("position_rows_F2", rows_F2.contiguous(), persistent=False)
        self.apply(initialize)

    def forward(self, span_vectors_QFH: Tensor, cls_QD: Tensor, keys_Q: Tensor | None = None) -> Tensor:
        """Span pair vectors [Q, H]. `keys_Q`, here and below: of dropout, see `Dropout`."""
        inputs_QFA, query_QA = self.input_linear(span_vectors_QFH), self.query_linear(cls_QD)
        return self._attend(span_vectors_QFH, inputs_QFA, query_QA, keys_Q)

    def free_pairs(
        self,
        span_vectors_SH: Tensor,
        cls_QD: Tensor,
        span_PF: Tensor,
        sequence_P: Tensor,
        keys_P: Tensor | None = None,
    ) -> Tensor:
        """[P, H]: the same for any pairs; `span_PF` are the rows of each pair's five spans, which pairs may share."""
        inputs_PFA = _take(self.input_linear(span_vectors_SH), span_PF)
        query_PA = _take(self.query_linear(cls_QD), sequence_P)
        return self._attend(_take(span_vectors_SH, span_PF), inputs_PFA, query_PA, keys_P)

    def _attend(self, span_vectors_QFH: Tensor, inputs_QFA: Tensor, query_QA: Tensor, keys_Q: Tensor | None) -> Tensor:
        positions_FP = self.position_embedding(self.position_rows_F2).flatten(1)
        features_QFA = inputs_QFA + query_QA[:, None, :] + self.feature_linear(positions_FP)
        scores_QF = self.score_linear(self.activation(features_QFA)).squeeze(-1)
        weights_QF = torch.softmax(scores_QF.float(), dim=-1).to(span_vectors_QFH.dtype)
        return self.dropout(torch.einsum("qf,qfh->qh", weights_QF, span_vectors_QFH), keys_Q)


def _take(rows_SX: Tensor, index: Tensor) -> Tensor:
    return rows_SX.index_select(0, index.flatten()).unflatten(0, index.shape)
