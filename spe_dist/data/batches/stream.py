"""Training steps of a rank, from shards to packed micro-batches, in loader processes or in place.

Every step is a pure function of its number (see `order` and `corruption`): worker w of W builds steps start + w,
start + w + W, ..., and any number of ranks and workers gives the same sentences, corrupted alike, in the same steps.

Legend of the shape suffixes: N slots of a rank in a step
"""

from __future__ import annotations

import itertools
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from spe_dist.config.pretraining import CorruptionConfig
from spe_dist.data.batches.corruption import check_corruption, corrupt
from spe_dist.data.batches.order import Order
from spe_dist.data.batches.packed import PackedBatch
from spe_dist.data.batches.packing import SpecialPieces, pack
from spe_dist.data.shards.manifest import Manifest
from spe_dist.data.shards.reader import BlockSource, SentenceReader
from spe_dist.errors import ConfigError

if TYPE_CHECKING:
    from spe_dist.data.batches.loader import WorkerLoader

_SPARE_BLOCKS = 8


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


@dataclass(frozen=True)
class StepBatch:
    """What one rank trains on in one step."""

    step: int
    epoch: int  # of the global batch's first slot
    micro_batches: list[PackedBatch]  # contiguous parts of the rank's slots, in slot order

    def pin_memory(self) -> StepBatch:
        return replace(self, micro_batches=[batch.pin_memory() for batch in self.micro_batches])


def check_batch(global_batch: int, micro_batch: int, ranks: int) -> None:
    """ConfigError unless the ranks' shares and their micro-batches come out even."""
    if micro_batch < 1:
        raise ConfigError(f"micro_batch_sentences={micro_batch} is not positive; choose at least 1")
    unit = ranks * micro_batch
    if global_batch < 1 or global_batch % unit:
        below, above = global_batch // unit * unit, (global_batch // unit + 1) * unit
        nearest = f"{below} or {above}" if below > 0 else f"{above}"
        raise ConfigError(
            f"global_batch_sentences={global_batch} is not divisible by ranks x micro-batch = {ranks} x {micro_batch}; "
            f"the nearest values that are: {nearest}"
        )


def special_pieces(manifest: Manifest) -> SpecialPieces:
    return SpecialPieces(manifest.cls_id, manifest.sep_id, manifest.mask_id)


class StepBuilder:
    """Builds any step of one rank. Picklable; a copy in another process starts with an empty cache."""

    def __init__(
        self, store: Store, corruption: CorruptionConfig, order: Order, micro_batch: int, rank: int, ranks: int
    ) -> None:
        check_batch(order.global_batch, micro_batch, ranks)
        check_corruption(corruption)
        assert 0 <= rank < ranks
        self.corruption = corruption
        self.order = order
        self.micro_batch = micro_batch
        self.n_slots = order.global_batch // ranks
        self.first_slot = rank * self.n_slots
        self.first_sentence_id = store.first_sentence_id
        self.special = special_pieces(store.manifest)
        streams_touched = self.n_slots // order.sentences_per_stream + 2
        self.reader = SentenceReader(store, streams_touched + _SPARE_BLOCKS)

    def __getstate__(self) -> dict:
        reader = SentenceReader(self.reader.store, self.reader.blocks_kept)
        return self.__dict__ | {"reader": reader}

    def build(self, step: int) -> StepBatch:
        places = self.order.slots(step, self.first_slot, self.n_slots)
        ids_N = self.first_sentence_id + places.sentences_N
        micro_batches = []
        for start in range(0, self.n_slots, self.micro_batch):
            part = slice(start, start + self.micro_batch)
            sentences = self.reader.read(places.blocks_N[part], places.index_in_block_N[part])
            corrupted = corrupt(sentences, ids_N[part], places.epochs_N[part], self.order.seed, self.corruption)
            micro_batches.append(pack(corrupted, self.special, self.corruption.view_masks))
        return StepBatch(step, self.order.epoch_of(step), micro_batches)


def step_loader(
    store: Store,
    corruption: CorruptionConfig,
    *,
    global_batch: int,
    micro_batch: int,
    rank: int,
    ranks: int,
    seed: int,
    streams: int,
    start_step: int,
    end_step: int | None = None,
    loader_workers: int = 0,
    prefetch_steps: int = 4,
    pin_memory: bool = False,
) -> Generator[StepBatch, None, None] | WorkerLoader:
    """This rank's part of steps start_step .. end_step - 1 (no end: for ever).

    With loader workers it is a `loader.WorkerLoader`, whose `close` ends them (so does the iterator's end, its
    collection and the end of the program). `streams` 0 chooses. Errors: ConfigError for a batch that does not divide,
    DataError for too few sentences or damaged shards, the latter when their step is due.
    """
    order = Order(store.block_sentences, seed, streams, global_batch)
    builder = StepBuilder(store, corruption, order, micro_batch, rank, ranks)
    if loader_workers:
        from spe_dist.data.batches.loader import WorkerLoader

        return WorkerLoader(builder, start_step, end_step, loader_workers, prefetch_steps, pin_memory)
    return _in_place(builder, start_step, end_step, pin_memory)


def _in_place(
    builder: StepBuilder, start_step: int, end_step: int | None, pin_memory: bool
) -> Generator[StepBatch, None, None]:
    steps = itertools.count(start_step) if end_step is None else range(start_step, end_step)
    for step in steps:
        batch = builder.build(step)
        yield batch.pin_memory() if pin_memory else batch
