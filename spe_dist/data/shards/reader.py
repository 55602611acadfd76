"""Sentences from anywhere in a store, through a cache of blocks.

Legend of the shape suffixes: N sentences, T pieces, W words; N1 = N + 1 borders
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from spe_dist.data.shards.blocks import Block
from spe_dist.utils.ragged import borders


@dataclass(frozen=True)
class SentenceBatch:
    """N sentences as they lie in blocks: no [CLS] or [SEP]."""

    piece_ids_T: np.ndarray
    piece_borders_N1: np.ndarray  # int64: borders of the sentences in T
    first_piece_W: np.ndarray  # int64: index into T of each word's first piece
    word_borders_N1: np.ndarray  # int64: borders of the sentences in W

    @property
    def n_sentences(self) -> int:
        return len(self.word_borders_N1) - 1


class BlockSource(Protocol):
    """What the reader needs of a `ShardStore`."""

    def block(self, index: int) -> Block: ...


Source = TypeVar("Source", bound=BlockSource)


class SentenceReader(Generic[Source]):
    """Reads sentences by (block, index); keeps the `blocks_kept` blocks that were used last (about 70 kB each)."""

    def __init__(self, store: Source, blocks_kept: int) -> None:
        self.store = store
        self.blocks_kept = blocks_kept
        self._blocks: OrderedDict[int, Block] = OrderedDict()

    def read(self, blocks_N: np.ndarray, index_in_block_N: np.ndarray) -> SentenceBatch:
        """The sentences at these places, in this order."""
        pieces, first_pieces = [], []
        for block_index, index in zip(blocks_N.tolist(), index_in_block_N.tolist(), strict=True):
            block = self._block(block_index)
            start, end = block.piece_offsets_N1[index : index + 2].tolist()
            pieces.append(block.piece_ids_T[start:end])
            start, end = block.word_offsets_N1[index : index + 2].tolist()
            first_pieces.append(block.first_pieces_W[start:end])
        piece_borders_N1 = borders(np.array([len(p) for p in pieces], dtype=np.int64))
        words_N = np.array([len(f) for f in first_pieces], dtype=np.int64)
        none = np.empty(0, dtype=np.int64)
        return SentenceBatch(
            piece_ids_T=np.concatenate(pieces) if pieces else none,
            piece_borders_N1=piece_borders_N1,
            first_piece_W=np.repeat(piece_borders_N1[:-1], words_N) + (np.concatenate([none, *first_pieces])),
            word_borders_N1=borders(words_N),
        )

    def has(self, index: int) -> bool:
        """Whether a block is kept now."""
        return index in self._blocks

    def _block(self, index: int) -> Block:
        block = self._blocks.get(index)
        if block is None:
            block = self._blocks[index] = self.store.block(index)
            if len(self._blocks) > self.blocks_kept:
                self._blocks.popitem(last=False)
        else:
            self._blocks.move_to_end(index)
        return block
