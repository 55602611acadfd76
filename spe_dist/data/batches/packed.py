"""Batches without padding: all sequences one behind the other, targets as flat index arrays.

Legend of the shape suffixes:
    B sentences, Q sequences, T tokens (pieces with [CLS] and [SEP]), W words, S spans (5 a sequence),
    M token boundary targets (masked pieces), P permuted spans, Y targets of masked language modelling
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spe_dist.data.batches.dropout_keys import DropoutKeys

SPANS = 5  # of a sequence


def _none() -> Tensor:
    return torch.empty(0, dtype=torch.int64)


@dataclass(frozen=True)
class BatchTensors:
    """Q sequences one behind the other as T tokens, the fields of a batch that an encoder reads."""

    piece_ids_T: Tensor  # int64: as the model sees them
    positions_T: Tensor  # int64: 0 at each [CLS]
    cu_seqlens_Q1: Tensor  # int32: borders of the sequences in T, first 0, last T
    dropout_keys: DropoutKeys | None = field(default=None, kw_only=True)  # None: drawn by torch's generator

    @property
    def n_sequences(self) -> int:
        return self.cu_seqlens_Q1.shape[0] - 1

    @property
    def n_tokens(self) -> int:
        return self.piece_ids_T.shape[0]


@dataclass(frozen=True)
class PackedBatch(BatchTensors):
    """One micro-batch of B sentences as Q sequences.

    Sequences 0..B-1 are the span-pair views of the sentences in slot order, B..2B-1 their context views in the same
    order; with `permutations` > 1 further sequences follow that serve the span permutation objective only. With masked
    language modelling a sequence of each sentence follows that serves it alone and has neither words nor spans; where
    no other objective is on, there are no others.
    Every sequence is [CLS] pieces [SEP]. Its five spans L, s1, M, s2, R (empty ones included) are spans 5q..5q+4 and
    partition its words in order, so word w of the batch belongs to span s iff
    span_borders_S1[s] <= w < span_borders_S1[s + 1].
    """

    sentence_ids_B: Tensor  # int64: global id of each sentence
    text_ids_B: Tensor  # int64: equal for sentences of equal pieces, which are no negatives of each other
    first_piece_W: Tensor  # int64: index into T of each word's first piece, ascending
    span_borders_S1: Tensor  # int64: borders of the spans in W, first 0, last W; S = 5Q
    tbo_first_piece_M: Tensor  # int64: index into T of the first piece of the word a target belongs to
    tbo_offset_M: Tensor  # int64: offset of the target inside its word, 1 for the second piece
    tbo_label_M: Tensor  # int64: the hidden piece
    spo_span_P: Tensor  # int64: index into S of each permuted span, in the view that shows it
    spo_label_P: Tensor  # int64: 0..5, index of the applied order, 0 = unchanged
    max_seqlen: int  # longest sequence in tokens
    view_tokens: int  # tokens of the views
    view_words: int  # words of the views
    # int64: (2 * copy + view) * B + sentence of each sequence behind the views, ascending; those of masked language
    # modelling count as the first view of one copy more
    further_places_F: Tensor = field(default_factory=_none, kw_only=True)
    mlm_token_Y: Tensor = field(default_factory=_none, kw_only=True)  # int64: index into T of each target
    mlm_label_Y: Tensor = field(default_factory=_none, kw_only=True)  # int64: the piece that stands there

    @property
    def n_sentences(self) -> int:
        return self.sentence_ids_B.shape[0]

    @property
    def n_span_sequences(self) -> int:
        """Sequences that have spans: all but those of masked language modelling, which come last."""
        return (self.span_borders_S1.shape[0] - 1) // SPANS

    @property
    def n_views(self) -> int:
        """Sequences that are a view of a sentence: two of each, or none."""
        return min(2 * self.n_sentences, self.n_span_sequences)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PackedBatch:
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> PackedBatch:
        return self._map(Tensor.pin_memory)

    def with_dropout_keys(
        self, seed: int, step: int, first_slot: int, global_batch: int, copies: int, mlm: bool = False
    ) -> PackedBatch:
        """The same with keys of dropout; on the CPU.

        `first_slot`: that of the first sentence, of the global batch's `global_batch`; `copies`: of each sentence;
        `mlm`: whether batches of the run have sequences of masked language modelling.
        """
        places_Q = np.concatenate([np.arange(self.n_views), self.further_places_F.numpy()])
        part_Q, sentence_Q = np.divmod(places_Q, max(self.n_sentences, 1))
        place_Q = part_Q * global_batch + first_slot + sentence_Q
        return replace(self, dropout_keys=DropoutKeys.of(seed, step, place_Q, (2 * copies + mlm) * global_batch))

    def _map(self, function: Callable[[Tensor], Tensor]) -> PackedBatch:
        values = ((f.name, getattr(self, f.name)) for f in fields(self))
        changed: dict[str, Any] = {name: function(value) for name, value in values if isinstance(value, Tensor)}
        if self.dropout_keys is not None:
            changed["dropout_keys"] = self.dropout_keys.map(function)
        return replace(self, **changed)
