"""The micro-batch of some sentences: the sequences that the objectives of a run need, in one `PackedBatch`.

Legend of the shape suffixes: N sentences
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from spe_dist.config.pretraining import CorruptionConfig, ObjectiveConfig
from spe_dist.data.batches.corruption import corrupt
from spe_dist.data.batches.masking import masked_batch
from spe_dist.data.batches.packed import PackedBatch
from spe_dist.data.batches.packing import SpecialPieces, pack
from spe_dist.data.shards.reader import SentenceBatch

PAPER = ObjectiveConfig()


def make_batch(
    sentences: SentenceBatch,
    sentence_ids_N: np.ndarray,
    epochs_N: np.ndarray | int,
    seed: int,
    special: SpecialPieces,
    config: CorruptionConfig,
    objectives: ObjectiveConfig = PAPER,
    span_words_N5: np.ndarray | None = None,
) -> PackedBatch:
    """The views of N sentences, where an objective reads them, then their sequences for MLM, where that is on.

    `span_words_N5`: as `corrupt` takes it.
    """
    if not objectives.views:
        return masked_batch(sentences, sentence_ids_N, epochs_N, seed, special, config)
    views = pack(corrupt(sentences, sentence_ids_N, epochs_N, seed, config, span_words_N5), special, config.view_masks)
    if not objectives.mlm:
        return views
    return append_masked(views, masked_batch(sentences, sentence_ids_N, epochs_N, seed, special, config))


def append_masked(views: PackedBatch, masked: PackedBatch) -> PackedBatch:
    """Both as one batch; the masked sequences come last, so that indices into the views stay as they are."""
    return replace(
        views,
        piece_ids_T=torch.cat([views.piece_ids_T, masked.piece_ids_T]),
        positions_T=torch.cat([views.positions_T, masked.positions_T]),
        cu_seqlens_Q1=torch.cat([views.cu_seqlens_Q1, masked.cu_seqlens_Q1[1:] + views.n_tokens]),
        max_seqlen=max(views.max_seqlen, masked.max_seqlen),
        further_places_F=torch.cat([views.further_places_F, masked.further_places_F]),
        mlm_token_Y=masked.mlm_token_Y + views.n_tokens,
        mlm_label_Y=masked.mlm_label_Y,
    )
