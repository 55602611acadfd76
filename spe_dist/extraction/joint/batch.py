"""Examples as one batch without padding: windows one behind the other, gold as flat index arrays.

Two ways to count words: W counts those of the windows, where a word that two windows hold counts twice; G counts
those of the sentences, each once. Where every sentence has one window they are the same.

Legend of the shape suffixes:
    B sentences (examples), Q sequences (windows), T tokens (pieces with [CLS] and [SEP]), W words of the windows,
    G words of the sentences, E gold spans, R gold pairs, N negative spans
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from spe_dist.data.batches.dropout_keys import DropoutKeys
from spe_dist.data.batches.packed import BatchTensors
from spe_dist.extraction.joint.examples import Example
from spe_dist.model.devices import send
from spe_dist.utils.ragged import borders, ranges


@dataclass(frozen=True)
class ExtractionBatch(BatchTensors):
    """B sentences as Q sequences; the windows of a sentence stand together, in order.

    The network reads the first six tensors, on its device. The others stay on the CPU, where spans and pairs are
    chosen.
    """

    first_piece_W: Tensor  # int64: index into T of each word's first piece
    own_word_G: Tensor  # int64: index into W of each word in the window that decides it
    tags_G: Tensor  # int64: gold tags, see `tags`
    word_borders_Q1: Tensor  # int64: borders of the sequences in W, first 0, last W
    window_first_Q: Tensor  # int64: index into G of each sequence's first word
    window_borders_B1: Tensor  # int64: borders of the sentences in Q
    sentence_borders_B1: Tensor  # int64: borders of the sentences in G
    entity_start_E: Tensor  # int64: index into G; ascending by (start, end)
    entity_end_E: Tensor
    entity_class_E: Tensor  # int64: see `Labels`; 0 for arguments of relations that are no entities
    pair_first_R: Tensor  # int64: index into E of the span that stands first
    pair_second_R: Tensor
    pair_class_R: Tensor  # int64: see `Labels`
    negative_start_N: Tensor  # int64: index into G of spans that training types beside the predicted and gold ones
    negative_end_N: Tensor
    max_seqlen: int  # longest sequence in tokens
    max_words: int  # longest sentence in words
    max_windows: int  # most windows of a sentence

    def to(self, device: torch.device | str) -> ExtractionBatch:
        """What the network reads on `device`, sent in one copy that nothing waits for."""
        tensors: tuple[Tensor, ...] = (
            self.piece_ids_T,
            self.positions_T,
            self.cu_seqlens_Q1.long(),
            self.first_piece_W,
            self.own_word_G,
            self.tags_G,
        )
        keys = self.dropout_keys
        if keys is not None:
            tensors += (keys.key_Q.long(), keys.place_Q)
        piece_ids_T, positions_T, cu_seqlens_Q1, first_piece_W, own_word_G, tags_G, *rest = send(
            tensors, torch.device(device)
        )
        if keys is not None:
            keys = replace(keys, key_Q=rest[0].int(), place_Q=rest[1])
        return replace(
            self,
            piece_ids_T=piece_ids_T,
            positions_T=positions_T,
            cu_seqlens_Q1=cu_seqlens_Q1.int(),
            first_piece_W=first_piece_W,
            own_word_G=own_word_G,
            tags_G=tags_G,
            dropout_keys=keys,
        )

    def with_dropout_keys(
        self, seed: int, step: int, first_slot: int, batch_sentences: int, most_windows: int
    ) -> ExtractionBatch:
        """The same with keys of dropout; on the CPU.

        `first_slot`: that of the first sentence, of the whole batch's `batch_sentences`; `most_windows`: of any
        sentence of the training.
        """
        windows_B = self.window_borders_B1.diff().numpy()
        slot_Q = np.repeat(np.arange(first_slot, first_slot + self.n_examples), windows_B)
        place_Q = slot_Q * most_windows + ranges(windows_B)
        return replace(self, dropout_keys=DropoutKeys.of(seed, step, place_Q, batch_sentences * most_windows))

    def with_negative_spans(self, start_N: np.ndarray, end_N: np.ndarray) -> ExtractionBatch:
        """The same with spans, in G, that training types too: gold ones keep their class, others are none."""
        return replace(self, negative_start_N=_tensor(start_N), negative_end_N=_tensor(end_N))

    @property
    def device(self) -> torch.device:
        """Where the network reads it."""
        return self.piece_ids_T.device

    @property
    def n_examples(self) -> int:
        return self.sentence_borders_B1.shape[0] - 1

    @property
    def n_words(self) -> int:
        """Words of the sentences, G."""
        return self.own_word_G.shape[0]


def collate(examples: Sequence[Example]) -> ExtractionBatch:
    """The batch of one or more examples, in their order."""
    assert examples, "a batch needs an example"
    windows = [window for example in examples for window in example.windows]
    tokens_Q = np.array([len(window.piece_ids) for window in windows])
    words_Q = np.array([window.end_word - window.first_word for window in windows])
    words_B = np.array([example.n_words for example in examples])
    windows_B = np.array([len(example.windows) for example in examples])
    token_borders_Q1, word_borders_Q1, sentence_borders_B1 = borders(tokens_Q), borders(words_Q), borders(words_B)
    first_piece_W = _join([window.first_pieces for window in windows])
    first_piece_W += np.repeat(token_borders_Q1[:-1], words_Q)
    window_first_Q = np.repeat(sentence_borders_B1[:-1], windows_B)
    window_first_Q += np.array([window.first_word for window in windows])

    own_Q = np.array([window.own_end - window.own_first for window in windows])
    own_start_Q = word_borders_Q1[:-1] + np.array([window.own_first - window.first_word for window in windows])
    own_word_G = np.repeat(own_start_Q, own_Q) + ranges(own_Q)

    golds = [example.gold for example in examples]
    spans_B = np.array([len(gold.spans) for gold in golds])
    pairs_B = np.array([len(gold.pairs) for gold in golds])
    spans_E2 = np.concatenate([gold.spans for gold in golds]) + np.repeat(sentence_borders_B1[:-1], spans_B)[:, None]
    pairs_R2 = np.concatenate([gold.pairs for gold in golds]) + np.repeat(borders(spans_B)[:-1], pairs_B)[:, None]
    return ExtractionBatch(
        piece_ids_T=_tensor(_join([window.piece_ids for window in windows])),
        positions_T=_tensor(ranges(tokens_Q)),
        cu_seqlens_Q1=torch.from_numpy(token_borders_Q1.astype(np.int32)),
        first_piece_W=_tensor(first_piece_W),
        own_word_G=_tensor(own_word_G),
        tags_G=_tensor(np.concatenate([gold.tags for gold in golds])),
        word_borders_Q1=_tensor(word_borders_Q1),
        window_first_Q=_tensor(window_first_Q),
        window_borders_B1=_tensor(borders(windows_B)),
        sentence_borders_B1=_tensor(sentence_borders_B1),
        entity_start_E=_tensor(spans_E2[:, 0]),
        entity_end_E=_tensor(spans_E2[:, 1]),
        entity_class_E=_tensor(np.concatenate([gold.classes for gold in golds])),
        pair_first_R=_tensor(pairs_R2[:, 0]),
        pair_second_R=_tensor(pairs_R2[:, 1]),
        pair_class_R=_tensor(np.concatenate([gold.pair_classes for gold in golds])),
        negative_start_N=torch.zeros(0, dtype=torch.int64),
        negative_end_N=torch.zeros(0, dtype=torch.int64),
        max_seqlen=int(tokens_Q.max()),
        max_words=int(words_B.max()),
        max_windows=int(windows_B.max()),
    )


def _join(lists: Sequence[Sequence[int]]) -> np.ndarray:
    return np.array([value for values in lists for value in values], dtype=np.int64)


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64))
