"""Held-out sentences as fixed micro-batches: as in training, and in groups of one common layout.

Which sentences are read, how they are corrupted and how they are cut into micro-batches depends on no number of ranks:
rank r of N takes micro-batches r, r + N, ...; where the last round is not full, ranks repeat the first micro-batch,
which counts for nothing, so that all ranks make the same number of forward calls (ZeRO-3 needs that).

Legend of the shape suffixes:
    N held-out sentences that are read, n sentences of a pass, G groups, E sentences of a group
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from spe_dist.config.pretraining import CorruptionConfig, ObjectiveConfig
from spe_dist.data.batches.assemble import PAPER, make_batch
from spe_dist.data.batches.corruption import draw_spans
from spe_dist.data.batches.packed import PackedBatch
from spe_dist.data.batches.stream import Store, special_pieces
from spe_dist.data.shards.reader import SentenceReader
from spe_dist.utils import randomness
from spe_dist.utils.randomness import Purpose

GROUP_SIZES = (32, 16, 8, 4, 2)
ENOUGH_GROUPED = 1_024  # sentences in groups that make a figure reliable to about a percent


@dataclass(frozen=True)
class HeldOutPass:
    """One rank's micro-batches of a pass over n sentences, and where their rows belong."""

    batches: list[PackedBatch]
    counted: list[bool]  # False: a repeat that only keeps the ranks in step
    sizes: list[int]  # sentences that count on each rank
    row_of_gathered_n: torch.Tensor  # sentence of each row, once rows are gathered in rank order

    def map(self, function: Callable[[PackedBatch], PackedBatch]) -> HeldOutPass:
        return replace(self, batches=[function(batch) for batch in self.batches])


class HeldOutSentences:
    """The first `sentences` sentences of the held-out split, with the corruption they always get."""

    def __init__(
        self,
        store: Store,
        corruption: CorruptionConfig,
        sentences: int,
        seed: int,
        objectives: ObjectiveConfig = PAPER,
    ) -> None:
        self.corruption, self.objectives = corruption, objectives
        self.special = special_pieces(store.manifest)
        self.seed = randomness.derive_seed(seed, Purpose.EVALUATION)
        total = min(sentences, store.n_sentences)
        places_N = np.arange(total)
        block_ends = np.cumsum(store.block_sentences)
        self._blocks_N = np.searchsorted(block_ends, places_N, side="right")
        self._index_N = places_N - (block_ends - store.block_sentences)[self._blocks_N]
        self._ids_N = store.first_sentence_id + places_N
        self._reader = SentenceReader(store, blocks_kept=len(np.unique(self._blocks_N)) + 1)
        read = self._reader.read(self._blocks_N, self._index_N)
        words_N = np.diff(read.word_borders_N1)
        self._span_words_N5 = draw_spans(words_N, randomness.keys(self.seed, 0, self._ids_N), corruption)
        self.groups_GE = groups_of_equal_length(words_N)
        self.layouts_N6 = np.concatenate([words_N[:, None], self._span_words_N5], axis=1)
        self.frequent_piece = int(np.bincount(read.piece_ids_T).argmax()) if total else self.special.mask_id

    @property
    def n_sentences(self) -> int:
        return len(self._ids_N)

    def as_trained(self, micro_batch: int, rank: int = 0, ranks: int = 1) -> HeldOutPass:
        """All N sentences, corrupted as in training."""
        return self._pass(np.arange(self.n_sentences), self._span_words_N5, micro_batch, rank, ranks)

    def one_layout_a_group(self, micro_batch: int, rank: int = 0, ranks: int = 1) -> HeldOutPass:
        """The sentences of `groups_GE`, row by row: those of a group all get the spans that its first one drew.

        Equal within a group: words, and each span's place and words. Not equal: how many pieces these words have.
        """
        layouts_n5 = self._span_words_N5[np.repeat(self.groups_GE[:, 0], self.groups_GE.shape[1])]
        return self._pass(self.groups_GE.ravel(), layouts_n5, micro_batch, rank, ranks)

    def without_words(self, batch: PackedBatch) -> PackedBatch:
        """The control: every visible piece is one and the same; [CLS], [SEP], [MASK] and all targets stay."""
        special = torch.tensor([self.special.cls_id, self.special.sep_id, self.special.mask_id])
        kept_T = torch.isin(batch.piece_ids_T, special.to(batch.piece_ids_T.device))
        return replace(batch, piece_ids_T=batch.piece_ids_T.where(kept_T, self.frequent_piece))

    def _pass(self, places_n: np.ndarray, layouts_n5: np.ndarray, size: int, rank: int, ranks: int) -> HeldOutPass:
        cuts = [slice(start, start + size) for start in range(0, len(places_n), size)]
        by_rank = [cuts[r::ranks] for r in range(ranks)]
        mine = by_rank[rank] + cuts[:1] * (len(by_rank[0]) - len(by_rank[rank]))
        rows = np.arange(len(places_n))
        return HeldOutPass(
            batches=[self._batch(places_n[cut], layouts_n5[cut]) for cut in mine],
            counted=[i < len(by_rank[rank]) for i in range(len(mine))],
            sizes=[sum(len(rows[cut]) for cut in parts) for parts in by_rank],
            row_of_gathered_n=torch.from_numpy(np.concatenate([rows[:0], *(rows[c] for p in by_rank for c in p)])),
        )

    def _batch(self, places: np.ndarray, layouts: np.ndarray) -> PackedBatch:
        sentences = self._reader.read(self._blocks_N[places], self._index_N[places])
        drawn_by = self._ids_N[places], 0, self.seed
        return make_batch(sentences, *drawn_by, self.special, self.corruption, self.objectives, layouts)


def groups_of_equal_length(words_N: np.ndarray) -> np.ndarray:
    """groups_GE: indices of sentences in groups of equal word count, each sentence in one group at most.

    The largest size of GROUP_SIZES that leaves half of the sentences, or ENOUGH_GROUPED, in whole groups; the
    smallest where none does. Sentences that fill no group are left out.
    """
    order_N = np.argsort(words_N, kind="stable")
    starts = np.flatnonzero(np.diff(words_N[order_N], prepend=-1))
    runs = np.split(order_N, starts[1:]) if len(starts) else []
    groups_GE = np.empty((0, GROUP_SIZES[-1]), dtype=np.int64)
    for size in GROUP_SIZES:
        whole = [run[: len(run) // size * size].reshape(-1, size) for run in runs]
        groups_GE = np.concatenate([np.empty((0, size), dtype=np.int64), *whole])
        if groups_GE.size >= max(1, min(ENOUGH_GROUPED, len(words_N) // 2)):
            break
    return groups_GE
