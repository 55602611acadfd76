"""Training steps of a rank, from shards to packed micro-batches.

Every step is a pure function of its number (see `order` and `corruption`): worker w of W builds steps start + w,
start + w + W, ..., and any number of ranks and workers gives the same sentences, corrupted alike, in the same steps.

Legend of the shape suffixes: N slots of a rank in a step
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from spe_dist.config.pretraining import CorruptionConfig, ObjectiveConfig
from spe_dist.config.shared import check_batch_divides
from spe_dist.data.batches.assemble import PAPER, make_batch
from spe_dist.data.batches.corruption import check_corruption
from spe_dist.data.batches.order import Order, SlotPositions
from spe_dist.data.batches.packed import PackedBatch
from spe_dist.data.batches.packing import SpecialPieces
from spe_dist.data.shards.manifest import Manifest
from spe_dist.data.shards.reader import BlockSource, SentenceBatch, SentenceReader

_SPARE_BLOCKS = 8
_LOOKS_AHEAD = 8  # times that the order is asked over the length of the look ahead


class Store(BlockSource, Protocol):
    """What the stream needs of a `ShardStore`."""

    @property
    def manifest(self) -> Manifest: ...
    @property
    def block_sentences(self) -> np.ndarray: ...
    @property
    def first_sentence_id(self) -> int: ...
    @property
    def n_sentences(self) -> int: ...
    @property
    def lookahead_sentences(self) -> int: ...
    def prefetch(self, blocks: Iterable[int]) -> None: ...
    def has_ranges(self) -> bool: ...


@dataclass(frozen=True)
class StepBatch:
    """What one rank trains on in one step."""

    step: int
    epoch: int  # of the global batch's first slot
    micro_batches: list[PackedBatch]  # contiguous parts of the rank's slots, in slot order
    replaced: int = 0  # sentences that stand in the place of one that is left out

    def pin_memory(self) -> StepBatch:
        return replace(self, micro_batches=[batch.pin_memory() for batch in self.micro_batches])


def special_pieces(manifest: Manifest) -> SpecialPieces:
    """Ids of the pieces that sequences add, and how many there are to draw from."""
    return SpecialPieces(manifest.cls_id, manifest.sep_id, manifest.mask_id, manifest.vocabulary_size)


class StepBuilder:
    """Builds any step of one rank. Picklable; a copy in another process starts with an empty cache.

    `objectives`: those for which sequences are made.

    Raises:
        ConfigError: the global batch does not divide by ranks and micro-batches, or a setting is out of range.
    """

    def __init__(
        self,
        store: Store,
        corruption: CorruptionConfig,
        order: Order,
        micro_batch: int,
        rank: int,
        ranks: int,
        objectives: ObjectiveConfig = PAPER,
    ) -> None:
        check_batch_divides("global_batch_sentences", order.global_batch, ranks, micro_batch)
        check_corruption(corruption)
        assert 0 <= rank < ranks
        self.corruption, self.objectives = corruption, objectives
        self.order = order
        self.micro_batch = micro_batch
        self.n_slots = order.global_batch // ranks
        self.first_slot = rank * self.n_slots
        self.first_sentence_id = store.first_sentence_id
        self.special = special_pieces(store.manifest)
        streams_touched = self.n_slots // order.sentences_per_stream + 2
        self.reader: SentenceReader[Store] = SentenceReader(store, streams_touched + _SPARE_BLOCKS)

        self._planned = 0  # steps before it have been looked at

    def __getstate__(self) -> dict:
        """Without what the store's index gives again: the pickle stays small however many blocks there are."""
        reader = SentenceReader(self.reader.store, self.reader.blocks_kept)
        return self.__dict__ | {"reader": reader, "order": self.order.settings(), "_planned": 0}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self.order = Order(self.reader.store.block_sentences, **state["order"])

    def build(self, step: int) -> StepBatch:
        places = self.order.slots(step, self.first_slot, self.n_slots)
        self._fetch_ahead(step, places)
        ids_N = self.first_sentence_id + places.sentences_N
        micro_batches = []
        for start in range(0, self.n_slots, self.micro_batch):
            part = slice(start, start + self.micro_batch)
            sentences = self.reader.read(places.blocks_N[part], places.index_in_block_N[part])
            drawn_by = ids_N[part], places.epochs_N[part], self.order.seed
            micro_batches.append(make_batch(sentences, *drawn_by, self.special, self.corruption, self.objectives))
        return StepBatch(step, self.order.epoch_of(step), micro_batches, places.replaced)

    def read(self, step: int) -> SentenceBatch:
        """The rank's sentences of a step as they lie in their blocks, neither corrupted nor packed."""
        places = self.order.slots(step, self.first_slot, self.n_slots)
        self._fetch_ahead(step, places)
        return self.reader.read(places.blocks_N, places.index_in_block_N)

    def _fetch_ahead(self, step: int, places: SlotPositions) -> None:
        """Have the store fetch the blocks of this step, and some that its streams come to within the look ahead."""
        store = self.reader.store
        ahead = -(-store.lookahead_sentences // self.order.sentences_per_stream)
        if not ahead:
            return
        store.prefetch(block for block in np.unique(places.blocks_N).tolist() if not self.reader.has(block))
        stride = -(-ahead // _LOOKS_AHEAD)
        first = max(self._planned, step + stride)
        for later in range(-(-first // stride) * stride, step + ahead + 1, stride):
            blocks_N = self.order.slots(later, self.first_slot, self.n_slots).blocks_N
            store.prefetch(block for block in np.unique(blocks_N).tolist() if not self.reader.has(block))
            self._planned = later + 1
