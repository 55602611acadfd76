"""Which sentence stands in which slot of which step: closed form, no reading.

An epoch is a seeded permutation of all blocks (or of all shards, and of the blocks inside each), joined into one
sequence of N sentences and cut into S equal streams (+-1 sentence). Stream j feeds slots j*G/S .. (j+1)*G/S - 1 of
every global batch of G sentences and goes on into its next epoch without waiting for the others. The order knows
nothing of ranks and loader processes: a rank asks for its slots of a step, and any number of ranks that divides the
batch sees the same sentences in the same steps.

Which streams get the longer share moves on from epoch to epoch, so that the first E epochs of stream j hold
C_j(E) = (E*N + S-1-j) // S sentences, and sentence p of stream j stands in epoch (p*S + j) // N. That makes a position
a matter of arithmetic: resuming costs O(blocks) however much was passed.

Legend of the shape suffixes: N slots asked for, B blocks
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spe_dist.data.batches.replacing import Replacements
from spe_dist.errors import CheckpointError, ConfigError, DataError
from spe_dist.utils import randomness
from spe_dist.utils.ragged import borders
from spe_dist.utils.randomness import Purpose

MAX_STREAMS = 256
MAX_STREAMS_OF_SHARDS = 8  # each has a whole shard open
_EPOCHS_KEPT = 2  # a step has slots of at most two; 12 MB each where an epoch has a million blocks


@dataclass(frozen=True)
class SlotPositions:
    """Where the sentences of some slots of a step stand; all int64 [N]."""

    epochs_N: np.ndarray
    blocks_N: np.ndarray
    index_in_block_N: np.ndarray
    sentences_N: np.ndarray  # position in the split, 0..n_sentences-1, in file order
    replaced: int = 0  # how many stand in the place of a sentence that is left out


def choose_streams(global_batch: int, most: int = MAX_STREAMS) -> int:
    """The largest divisor of the global batch that is at most `most`."""
    if global_batch < 1:
        raise ConfigError(f"global_batch_sentences={global_batch} is not positive; choose at least 1")
    return max(n for n in range(1, min(global_batch, most) + 1) if global_batch % n == 0)


def _check_streams(streams: int, global_batch: int) -> None:
    if streams < 1 or global_batch % streams:
        divisors = [n for n in range(1, global_batch + 1) if global_batch % n == 0]
        below = [n for n in divisors if n < streams]
        nearest = below[-1:] + divisors[len(below) :][:1]
        raise ConfigError(
            f"streams={streams} does not divide global_batch_sentences={global_batch}; "
            f"choose {' or '.join(map(str, nearest))}, or 0 to have it chosen"
        )


class Order:
    """The order of one training run's sentences.

    block_sentences: sentences of each block of the split, in file order. `streams` 0 chooses. `shard_blocks`: blocks of
    each shard, where a stream shall read one shard after another; None: it goes from any block to any other.
    `left_out`: positions in file order of sentences that are not trained; see `Replacements`.

    Raises:
        DataError: the split has fewer sentences than the global batch.
        ConfigError: the streams do not divide it.
    """

    def __init__(
        self,
        block_sentences: np.ndarray,
        seed: int,
        streams: int,
        global_batch: int,
        manifest_hash: str = "",
        shard_blocks: np.ndarray | None = None,
        left_out: Sequence[int] = (),
    ) -> None:
        most = MAX_STREAMS if shard_blocks is None else MAX_STREAMS_OF_SHARDS
        chosen = choose_streams(global_batch, most) if streams == 0 else streams
        _check_streams(chosen, global_batch)
        self.block_sentences_B = np.asarray(block_sentences)
        self.block_starts_B = borders(self.block_sentences_B)[:-1]
        self.sentences_per_epoch = int(self.block_sentences_B.sum(dtype=np.int64))
        if self.sentences_per_epoch < global_batch:
            raise DataError(
                f"the shards have {self.sentences_per_epoch} training sentences, fewer than "
                f"global_batch_sentences={global_batch}; shard more text or lower global_batch_sentences to at most "
                f"{self.sentences_per_epoch}"
            )
        self.seed = seed
        self.streams = chosen
        self.global_batch = global_batch
        self.manifest_hash = manifest_hash
        self.left_out = tuple(left_out)
        self._replacements = Replacements(self.left_out, self.sentences_per_epoch)
        self.shard_blocks = shard_blocks
        self.sentences_per_stream = global_batch // chosen
        self._epochs: OrderedDict[int, tuple[np.ndarray, np.ndarray]] = OrderedDict()

    def leaving_out(self, left_out: Sequence[int]) -> Order:
        """The same order without these sentences, by their positions in file order."""
        return Order(self.block_sentences_B, **(self.settings() | {"left_out": left_out}))

    def settings(self) -> dict[str, Any]:
        """What makes the same order of the same blocks again: the other arguments."""
        return {
            "seed": self.seed,
            "streams": self.streams,
            "global_batch": self.global_batch,
            "manifest_hash": self.manifest_hash,
            "left_out": self.left_out,
            "shard_blocks": self.shard_blocks,
        }

    def slots(self, step: int, first_slot: int, n_slots: int) -> SlotPositions:
        """Positions of slots first_slot .. first_slot + n_slots - 1 of the global batch of a step (from 0)."""
        assert step >= 0 and 0 <= first_slot <= first_slot + n_slots <= self.global_batch
        slots_N = np.arange(first_slot, first_slot + n_slots, dtype=np.int64)
        streams_N, within_N = np.divmod(slots_N, self.sentences_per_stream)
        return self._replace(self._locate(streams_N, step * self.sentences_per_stream + within_N))

    def _replace(self, places: SlotPositions) -> SlotPositions:
        """The same where nothing is left out."""
        if not self.left_out:
            return places
        sentences_N, replaced_N = self._replacements(places.sentences_N)
        blocks_N = np.searchsorted(self.block_starts_B, sentences_N, side="right") - 1
        index_N = sentences_N - self.block_starts_B[blocks_N]
        return SlotPositions(places.epochs_N, blocks_N, index_N, sentences_N, int(replaced_N.sum()))

    def epoch_of(self, step: int) -> int:
        """The epoch of slot 0 of a step (a step on an epoch's border has slots of both)."""
        return step * self.global_batch // self.sentences_per_epoch

    def steps_for(self, epochs: float) -> int:
        """Steps that pass over the sentences `epochs` times, rounded up."""
        return math.ceil(epochs * self.sentences_per_epoch / self.global_batch)

    def _locate(self, streams_N: np.ndarray, positions_N: np.ndarray) -> SlotPositions:
        """From positions inside streams (counted over all epochs) to blocks."""
        total, n_streams = self.sentences_per_epoch, self.streams
        epochs_N = (positions_N * n_streams + streams_N) // total
        passed_N = (epochs_N * total + n_streams - 1 - streams_N) // n_streams
        in_epoch_N = self._stream_starts(epochs_N, streams_N) + positions_N - passed_N
        blocks_N = np.empty_like(in_epoch_N)
        index_N = np.empty_like(in_epoch_N)
        for epoch in np.unique(epochs_N).tolist():
            here = np.flatnonzero(epochs_N == epoch)
            permutation_B, ends_B = self._epoch(epoch)
            rank = np.searchsorted(ends_B, in_epoch_N[here], side="right")
            blocks_N[here] = permutation_B[rank]
            index_N[here] = in_epoch_N[here] - (ends_B[rank] - self.block_sentences_B[permutation_B[rank]])
        return SlotPositions(epochs_N, blocks_N, index_N, self.block_starts_B[blocks_N] + index_N)

    def _stream_starts(self, epochs_N: np.ndarray, streams_N: np.ndarray) -> np.ndarray:
        """First sentence of a stream in its epoch: r = N mod S streams, counted from (e*r) mod S on, have one more."""
        base, longer = divmod(self.sentences_per_epoch, self.streams)
        window_N = epochs_N * longer % self.streams
        wrapped_N = np.maximum(window_N + longer - self.streams, 0)
        return streams_N * base + np.clip(streams_N - window_N, 0, longer) + np.minimum(streams_N, wrapped_N)

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """(blocks in the epoch's order, sentences up to and with each of them), kept for the last few epochs."""
        if epoch not in self._epochs:
            bits_B = randomness.draws(
                randomness.keys(self.seed, epoch, np.arange(len(self.block_sentences_B))), Purpose.BLOCK_ORDER
            )
            if self.shard_blocks is None:
                permutation_B = np.argsort(bits_B, kind="stable").astype(np.int32)
            else:
                shards = np.arange(len(self.shard_blocks))
                shard_bits = randomness.draws(randomness.keys(self.seed, epoch, shards), Purpose.SHARD_ORDER)
                permutation_B = np.lexsort((bits_B, np.repeat(shard_bits, self.shard_blocks))).astype(np.int32)
            self._epochs[epoch] = permutation_B, np.cumsum(self.block_sentences_B[permutation_B], dtype=np.int64)
            if len(self._epochs) > _EPOCHS_KEPT:
                self._epochs.popitem(last=False)
        return self._epochs[epoch]

    def state_dict(self, steps: int) -> dict[str, Any]:
        """What a checkpoint keeps after `steps` steps: the position, and all that the order depends on."""
        state = {
            "sentences_consumed": steps * self.global_batch,
            "global_batch": self.global_batch,
            "streams": self.streams,
            "seed": self.seed,
            "manifest_hash": self.manifest_hash,
        }
        return state if self.shard_blocks is None else state | {"order": "shards"}

    def check(self, state: dict[str, Any]) -> int:
        """The steps consumed by a checkpoint's state; CheckpointError where it belongs to another order."""
        mine = self.state_dict(0)
        names = {"global_batch": "global_batch_sentences", "manifest_hash": "the shards' manifest"}
        for key in ("order", "manifest_hash", "global_batch", "streams", "seed"):
            default = "blocks" if key == "order" else None
            if state.get(key, default) != mine.get(key, default):
                name = names.get(key, key)
                raise CheckpointError(
                    f"the checkpoint was made with {name} = {state.get(key, default)}, this run has "
                    f"{mine.get(key, default)}: sentences "
                    f"would be lost or repeated; resume with the checkpoint's value, or start a new run"
                )
        consumed = state["sentences_consumed"]
        if consumed < 0 or consumed % self.global_batch:
            raise CheckpointError(
                f"the checkpoint's sentences_consumed = {consumed} is not a multiple of its global batch "
                f"{self.global_batch}; the checkpoint is damaged, take an older one"
            )
        return consumed // self.global_batch
