"""Floating point operations that a step's matrix products need, by formula, for the real tokens of a batch.

What an implementation computes beside that (padding, a product done twice) does not count; what nobody reads does not
either: of the last layer, everything after attention is needed for the first pieces of words and [CLS] alone. A
multiplication and an addition are two operations; a backward pass has twice the products of its forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass

from spe_dist.config.pretraining import Config
from spe_dist.data.batches.packed import SPANS, PackedBatch

WITH_BACKWARD = 3


@dataclass(frozen=True)
class Extent:
    """How much there is of a batch, or of the part of it that the key encoder reads."""

    sequences: int
    tokens: int
    squares: int  # sum of the squared lengths of the sequences
    words: int

    @classmethod
    def of(cls, batch: PackedBatch, sequences: int) -> Extent:
        """Of the first `sequences` of a batch."""
        borders = batch.cu_seqlens_Q1[: sequences + 1].long()
        lengths = borders.diff()
        words = int(batch.span_borders_S1[SPANS * sequences])
        return cls(sequences, int(borders[-1]), int((lengths * lengths).sum()), words)


def step_flops(config: Config, vocabulary: int, batch: PackedBatch, filled_keys: int) -> float:
    """What one micro-batch needs: query and heads with their backward, keys, and contrast with both queues."""
    model, objectives = config.model, config.objectives
    everything, views = Extent.of(batch, batch.n_span_sequences), Extent.of(batch, batch.n_views)
    hidden, span, size = model.hidden_size, model.span_size, model.key_size
    query = _encoder(config, everything) + _masked_encoder(config, batch, everything)
    if objectives.spo or objectives.cspo:
        query += _spans(config, everything)
    if objectives.spo:
        query += 2.0 * len(batch.spo_label_P) * span * (span + 6)
    if objectives.tbo:
        query += 2.0 * len(batch.tbo_label_M) * hidden * (hidden + model.tbo_offset_size + vocabulary)
    if objectives.mlm:
        query += 2.0 * len(batch.mlm_label_Y) * hidden * (hidden + vocabulary)
    if not objectives.cspo:
        return WITH_BACKWARD * query
    head = 2.0 * views.sequences * size * (span + size) if model.contrastive_head else 0.0
    query += _pairs(config, everything) + head
    keys = _encoder(config, views) + _spans(config, views) + _pairs(config, views) + head
    # Similarities to the keys of the other view, and the gradient of the queries; keys have none.
    contrast = 2 * 2 * 2.0 * batch.n_sentences * filled_keys * size
    return WITH_BACKWARD * query + keys + contrast


def _encoder(config: Config, extent: Extent) -> float:
    hidden, inner, layers = config.model.hidden_size, config.model.intermediate_size, config.model.layers
    attention = 2.0 * extent.tokens * 3 * hidden**2 + 4.0 * hidden * extent.squares
    rest = 2.0 * (hidden**2 + 2 * hidden * inner)
    read = extent.words + extent.sequences
    return layers * attention + rest * ((layers - 1) * extent.tokens + read)


def _masked_encoder(config: Config, batch: PackedBatch, others: Extent) -> float:
    """Of the sequences of masked language modelling, which stand behind the others; read are their targets."""
    lengths = batch.cu_seqlens_Q1[others.sequences :].long().diff()
    tokens, squares = batch.n_tokens - others.tokens, int((lengths * lengths).sum())
    return _encoder(config, Extent(0, tokens, squares, batch.mlm_label_Y.shape[0])) if tokens else 0.0


def _spans(config: Config, extent: Extent) -> float:
    model = config.model
    filters = model.cnn_channels * sum(model.cnn_kernels)
    mlp = model.cnn_channels * len(model.cnn_kernels) * model.span_size
    return 2.0 * extent.words * model.hidden_size * filters + 2.0 * SPANS * extent.sequences * mlp


def _pairs(config: Config, extent: Extent) -> float:
    model, sequences = config.model, extent.sequences
    spans = SPANS * sequences * (model.span_size * model.attention_size + model.attention_size + model.span_size)
    cls = (
        sequences
        * model.hidden_size
        * (model.attention_size + (model.hidden_size if model.cls_source == "pooler" else 0))
    )
    return 2.0 * (spans + cls + SPANS * 2 * model.position_size * model.attention_size)
