"""The whole network: encoder, span encoder, span pair encoder and heads over a packed batch (METHOD Network).

What an objective that is off would need does not exist: the span encoder serves SPO and CSPO, the span pair encoder
and the contrastive head CSPO, the encoder's pooler a CSPO with cls_source=pooler.

Every module reads only its own parameters and only inside its own `forward`, so an engine may shard them.

Legend of the shape suffixes:
    B sentences, Q sequences, T tokens, W words, S = 5Q spans, F = 5 spans of a sequence, M token boundary targets,
    P permuted spans, Y targets of masked language modelling, D hidden size, H span size, C width of queries and keys,
    V vocabulary, O = 6 orders
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spe_dist.data.batches.packed import SPANS, PackedBatch
from spe_dist.model.dropout import combine
from spe_dist.model.encoder import PackedBertEncoder, filled
from spe_dist.model.heads import ContrastiveHead, MaskedLanguageHead, PermutationHead, TiedDecoder, TokenBoundaryHead
from spe_dist.model.pair import PairEncoder
from spe_dist.model.span import SpanEncoder


@dataclass(frozen=True)
class EncodedBatch:
    """Vectors of all sequences of a batch; None where the model has no such part."""

    word_states_WD: Tensor  # state of each word's first piece; further rows are filler
    span_vectors_SH: Tensor | None
    pair_vectors_QH: Tensor | None
    mlm_states_YD: Tensor | None = None  # of the targets of masked language modelling, perhaps with filler behind them


@dataclass(frozen=True)
class PretrainingOutputs:
    """What the objectives take; None where an objective is off."""

    tbo_logits_MV: Tensor | None
    spo_logits_PO: Tensor | None
    pair_queries_BC: Tensor | None
    context_queries_BC: Tensor | None
    anchor: Tensor  # 0-dim, zero: ties heads without examples to the graph, so that every rank has every gradient
    mlm_logits_YV: Tensor | None = None


# "skipped": no backward pass through the encoder; "zero": one that gives zeros, for engines that want all gradients.
Freezing = Literal["skipped", "zero"]


class _NoGradient(torch.autograd.Function):
    """The identity, whose gradient is zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return torch.zeros_like(gradients[0])


class SpeModel(nn.Module):
    """Sentence encoder, span encoder and span pair encoder; what is kept after pre-training.

    `spe_dist.export.SpanPairEncoder` is the same for people who have words: it loads, encodes and saves.
    """

    freezing: Freezing | None = None
    """How the sentence encoder is kept from learning now; None: it learns."""

    def __init__(
        self,
        encoder: PackedBertEncoder,
        span_encoder: SpanEncoder | None = None,
        pair_encoder: PairEncoder | None = None,
        contrastive_head: ContrastiveHead | None = None,
    ):
        super().__init__()
        self.encoder = encoder
        self.span_encoder = span_encoder
        self.pair_encoder = pair_encoder
        self.contrastive_head = contrastive_head

    def forward(self, batch: PackedBatch) -> EncodedBatch:
        """Vectors of all sequences. A frozen encoder computes as always, its dropout too."""
        n_cls = batch.n_span_sequences if self.pair_encoder is not None else 0
        kept_N = torch.cat([batch.cu_seqlens_Q1[:n_cls].long(), batch.first_piece_W])  # all that is read of the states
        if self.encoder.fills_up:
            kept_N = filled(kept_N)
        n_words, mlm_states_YD = kept_N.shape[0] - n_cls, None
        n_mlm = batch.mlm_token_Y.shape[0]
        if n_mlm:
            mlm_token_Y = filled(batch.mlm_token_Y) if self.encoder.fills_up else batch.mlm_token_Y
            n_mlm, kept_N = mlm_token_Y.shape[0], torch.cat([kept_N, mlm_token_Y])
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.freezing != "skipped"):
            states_ND = self.encoder(
                batch.piece_ids_T,
                batch.positions_T,
                batch.cu_seqlens_Q1,
                batch.max_seqlen,
                kept_N=kept_N,
                dropout_keys=batch.dropout_keys,
            )
            pooled_QD = None
            if self.encoder.pooler is not None and n_cls:
                pooled_QD = self.encoder.pooler(states_ND[:n_cls])
        if self.freezing == "zero":
            states_ND = _NoGradient.apply(states_ND)
            pooled_QD = None if pooled_QD is None else _NoGradient.apply(pooled_QD)
        if n_mlm:
            states_ND, mlm_states_YD = states_ND.split([n_cls + n_words, n_mlm])
        cls_QD, word_states_WD = states_ND.split([n_cls, n_words])
        if self.span_encoder is None:
            return EncodedBatch(word_states_WD, None, None, mlm_states_YD)
        span_vectors_SH = self._span_vectors(word_states_WD, batch)
        if self.pair_encoder is None:
            return EncodedBatch(word_states_WD, span_vectors_SH, None, mlm_states_YD)
        cls_QD = cls_QD if pooled_QD is None else pooled_QD
        pair_vectors_QH = self.pair_encoder(span_vectors_SH.unflatten(0, (-1, SPANS)), cls_QD, _sequence_keys(batch))
        return EncodedBatch(word_states_WD, span_vectors_SH, pair_vectors_QH, mlm_states_YD)

    def _span_vectors(self, word_states_WD: Tensor, batch: PackedBatch) -> Tensor:
        """Those of the batch's spans; filler words are of one more span, which is left out."""
        assert self.span_encoder is not None
        keys_S = _span_keys(batch)
        if not self.encoder.fills_up:
            return self.span_encoder(word_states_WD, batch.span_borders_S1, keys_S)
        borders = F.pad(batch.span_borders_S1, (0, 1), value=word_states_WD.shape[0])
        return self.span_encoder(word_states_WD, borders, None if keys_S is None else F.pad(keys_S, (0, 1)))[:-1]

    def project(self, pair_vectors_QH: Tensor, keys_Q: Tensor | None = None) -> Tensor:
        """What is compared: the contrastive head's output, or the span pair vector itself where there is no head.

        `keys_Q`: of dropout, see `Dropout`.
        """
        return pair_vectors_QH if self.contrastive_head is None else self.contrastive_head(pair_vectors_QH, keys_Q)


# What dropout is drawn from, int32, None where that is torch's generator. Tokens have `token_keys` of their own; of a
# sequence's key, numbers from here on are those of spans and of the key encoder, of a token's, in which the encoder's
# layers come first, those of token boundary targets.
_FIRST_SPAN, _KEY_ENCODER, _FIRST_TARGET = 1 << 20, 1 << 21, 1 << 22


def _sequence_keys(batch: PackedBatch) -> Tensor | None:
    """Of the sequences that have spans."""
    return None if batch.dropout_keys is None else batch.dropout_keys.key_Q[: batch.n_span_sequences]


def _span_keys(batch: PackedBatch) -> Tensor | None:
    key_Q = _sequence_keys(batch)
    if key_Q is None:
        return None
    return combine(key_Q[:, None], torch.arange(_FIRST_SPAN, _FIRST_SPAN + SPANS, device=key_Q.device)).flatten()


def _target_keys(batch: PackedBatch, first_piece_M: Tensor, offset_M: Tensor) -> Tensor:
    """[M]: of token boundary targets, by the token that they are read from and the offset."""
    assert batch.dropout_keys is not None
    sequence_M = torch.searchsorted(batch.cu_seqlens_Q1, first_piece_M, right=True) - 1
    key_M = batch.dropout_keys.key_Q.index_select(0, sequence_M)
    token_M = combine(key_M, batch.positions_T.index_select(0, first_piece_M))
    return combine(token_M, _FIRST_TARGET + offset_M)


class KeyEncoder(SpeModel):
    """f_k of CSPO: no gradient, parameter names as in `PretrainingModel.spe`."""

    def parts(self) -> list[nn.Module]:
        """What has its parameters, in the order in which `keys` calls them."""
        encoder = self.encoder
        layers = (encoder.embeddings, *encoder.encoder.layer)
        parts = (*layers, self.span_encoder, encoder.pooler, self.pair_encoder, self.contrastive_head)
        return [part for part in parts if part is not None]

    normalize: bool = True
    dropout_on: bool = False

    @torch.no_grad()
    def keys(self, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        """(span-pair keys, context keys), both [B, C] in float32, of unit length where `normalize` is on."""
        batch = views_only(batch)
        keys = batch.dropout_keys
        if keys is not None:  # masks of its own
            keys = replace(keys, key_Q=combine(keys.key_Q, _KEY_ENCODER)) if self.training else None
            batch = replace(batch, dropout_keys=keys)
        pair_vectors_QH = self(batch).pair_vectors_QH
        keys_QC = self.project(pair_vectors_QH, _sequence_keys(batch)).float()
        if self.normalize:
            keys_QC = F.normalize(keys_QC, dim=1)
        pair_keys_BC, context_keys_BC = keys_QC.chunk(2)
        return pair_keys_BC, context_keys_BC

    def train(self, mode: bool = True) -> KeyEncoder:
        """Stays in eval mode unless its dropout is wanted, whatever its owner does."""
        return super().train(mode and self.dropout_on)


class PretrainingModel(nn.Module):
    """f_q with the heads of the objectives that are on."""

    def __init__(
        self,
        spe: SpeModel,
        tbo_head: TokenBoundaryHead | None = None,
        spo_head: PermutationHead | None = None,
        mlm_head: MaskedLanguageHead | None = None,
    ):
        super().__init__()
        self.spe = spe
        self.tbo_head = tbo_head
        self.spo_head = spo_head
        self.mlm_head = mlm_head

    def forward(self, batch: PackedBatch) -> PretrainingOutputs:
        encoded = self.spe(batch)
        anchor = encoded.word_states_WD.new_zeros((), dtype=torch.float32)
        tbo_logits_MV = spo_logits_PO = pair_queries_BC = context_queries_BC = mlm_logits_YV = None
        if self.tbo_head is not None:
            tbo_logits_MV, touched = self._tbo(batch, encoded.word_states_WD)
            anchor = anchor + touched
        if self.spo_head is not None:
            spo_logits_PO, touched = self._spo(batch, encoded.span_vectors_SH)
            anchor = anchor + touched
        if self.mlm_head is not None:
            mlm_logits_YV, touched = self._mlm(batch, encoded)
            anchor = anchor + touched
        if encoded.pair_vectors_QH is not None:
            n_views = batch.n_views
            keys_Q = _sequence_keys(batch)
            queries_QC = self.spe.project(
                encoded.pair_vectors_QH[:n_views], None if keys_Q is None else keys_Q[:n_views]
            )
            pair_queries_BC, context_queries_BC = queries_QC.chunk(2)
        return PretrainingOutputs(
            tbo_logits_MV, spo_logits_PO, pair_queries_BC, context_queries_BC, anchor, mlm_logits_YV
        )

    def freeze_encoder(self, freezing: Freezing | None) -> None:
        """Keep the sentence encoder, tied decoders included, from learning, or have it learn again."""
        self.spe.freezing = freezing
        for module in self.modules():
            if isinstance(module, TiedDecoder):
                module.is_frozen = freezing is not None

    def _tbo(self, batch: PackedBatch, word_states_WD: Tensor) -> tuple[Tensor, Tensor | float]:
        assert self.tbo_head is not None
        word_M = torch.searchsorted(batch.first_piece_W, batch.tbo_first_piece_M)
        offset_M, keys_M = self._some(batch.tbo_offset_M), None
        if batch.dropout_keys is not None:
            keys_M = _target_keys(batch, self._some(batch.tbo_first_piece_M), offset_M)
        logits_MV = self.tbo_head(word_states_WD[self._some(word_M)], offset_M, keys_M)
        return _without_filler(logits_MV, word_M.shape[0])

    def _spo(self, batch: PackedBatch, span_vectors_SH: Tensor | None) -> tuple[Tensor, Tensor | float]:
        assert self.spo_head is not None and span_vectors_SH is not None
        span_P, keys_S = self._some(batch.spo_span_P), _span_keys(batch)
        logits_PO = self.spo_head(span_vectors_SH[span_P], None if keys_S is None else keys_S[span_P])
        return _without_filler(logits_PO, batch.spo_label_P.shape[0])

    def _mlm(self, batch: PackedBatch, encoded: EncodedBatch) -> tuple[Tensor, Tensor | float]:
        assert self.mlm_head is not None
        states_YD = encoded.mlm_states_YD
        logits_YV = self.mlm_head(encoded.word_states_WD[:1] if states_YD is None else states_YD)
        return _without_filler(logits_YV, batch.mlm_label_Y.shape[0])

    def _some(self, index_N: Tensor) -> Tensor:
        """The index filled up: to one in place of none, as every rank calls every module, and to a rounded number."""
        if self.spe.encoder.fills_up:
            return filled(index_N)
        return index_N if index_N.shape[0] else index_N.new_zeros(1)


def _without_filler(logits_NX: Tensor, n_real: int) -> tuple[Tensor, Tensor | float]:
    """(the first rows, a zero that ties the head to the graph where there are none).

    The zero is float32: its gradient is the loss scale, which float16 holds up to 65,504, and 0 times infinity is NaN.
    """
    if logits_NX.shape[0] == n_real:
        return logits_NX, 0.0
    return logits_NX[:n_real], 0.0 if n_real else 0.0 * logits_NX[:, 0].float().sum()


def views_only(batch: PackedBatch) -> PackedBatch:
    """The batch without sequences that serve SPO or MLM only, and without targets."""
    n_views = batch.n_views
    if batch.n_sequences == n_views:
        return batch
    n_tokens, n_words = batch.view_tokens, batch.view_words
    none = batch.tbo_label_M[:0]
    return PackedBatch(
        sentence_ids_B=batch.sentence_ids_B,
        text_ids_B=batch.text_ids_B,
        piece_ids_T=batch.piece_ids_T[:n_tokens],
        positions_T=batch.positions_T[:n_tokens],
        cu_seqlens_Q1=batch.cu_seqlens_Q1[: n_views + 1],
        first_piece_W=batch.first_piece_W[:n_words],
        span_borders_S1=batch.span_borders_S1[: SPANS * n_views + 1],
        tbo_first_piece_M=none,
        tbo_offset_M=none,
        tbo_label_M=none,
        spo_span_P=none,
        spo_label_P=none,
        max_seqlen=batch.max_seqlen,
        view_tokens=n_tokens,
        view_words=n_words,
        dropout_keys=None if batch.dropout_keys is None else batch.dropout_keys.first(n_views),
    )
