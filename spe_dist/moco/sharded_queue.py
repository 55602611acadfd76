"""The queue of keys spread over the ranks: each holds the keys of its slots of the ring and no others.

The ring is that of `KeyQueue`: the n-th key ever lies in slot n modulo the capacity. Slots are dealt to ranks in
blocks, block b to rank b modulo ranks, some 64 blocks to each: so ranks hold equally many keys, to within a block, also
while the queue fills, and what a rank holds is few runs of slots.

Legend of the shape suffixes:
    B keys that enter together, K slots of the ring, L slots of this rank, N some of them, C width of a key
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spe_dist.errors import ConfigError
from spe_dist.moco.checksums import checksum, row_checksums
from spe_dist.moco.fragments import Fragment, FragmentSource, Gathers, read_replicated
from spe_dist.moco.queue import NO_TEXT, check_saved_queue

BLOCKS_A_RANK = 64
ROWS_AT_ONCE = 4_096  # that a checksum of all rows takes; bounds what it needs beside the keys


@dataclass(frozen=True)
class Run:
    """Slots slot .. slot + length - 1 of the ring, which are the rows row .. row + length - 1 of their rank."""

    slot: int
    row: int
    length: int

    @property
    def slots(self) -> slice:
        return slice(self.slot, self.slot + self.length)

    @property
    def rows(self) -> slice:
        return slice(self.row, self.row + self.length)


@dataclass(frozen=True)
class QueueLayout:
    """Which slots of the ring are whose. A rank's rows are in the order of their slots."""

    queue_keys: int
    rank: int
    ranks: int

    @property
    def block(self) -> int:
        """Slots that are dealt together."""
        return max(1, self.queue_keys // (BLOCKS_A_RANK * self.ranks))

    def held(self, fill: int) -> int:
        """How many of the slots 0 .. fill - 1 are this rank's; they are its first rows."""
        full, rest = divmod(fill, self.block)
        rounds, further = divmod(full, self.ranks)
        return rounds * self.block + (self.block if further > self.rank else rest if further == self.rank else 0)

    @property
    def rows(self) -> int:
        """How many slots this rank has."""
        return self.held(self.queue_keys)

    def runs(self) -> Iterator[Run]:
        """All slots of this rank."""
        for row in range(0, self.rows, self.block):
            slot = row * self.ranks + self.rank * self.block
            yield Run(slot, row, min(self.block, self.queue_keys - slot))

    def mine(self, slots_N: Tensor) -> tuple[Tensor, Tensor]:
        """Of some slots, the places in `slots_N` of those that are this rank's, and their rows."""
        block_N = slots_N // self.block
        places_N = (block_N % self.ranks == self.rank).nonzero().squeeze(1)
        return places_N, block_N[places_N] // self.ranks * self.block + slots_N[places_N] % self.block


class ShardedKeyQueue(nn.Module):
    """One rank's part of the last `queue_keys` keys.

    Buffers: keys_LC in the queue's dtype and ids_L (int64, -1 where unfilled). `cursor`, the slot of the next key, and
    `fill`, the number of filled slots of the ring, are the same on all ranks and known without asking the device.
    """

    keys_LC: Tensor
    ids_L: Tensor
    entered: Tensor
    written: Tensor

    def __init__(
        self,
        queue_keys: int,
        key_size: int,
        rank: int,
        ranks: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if queue_keys < 1:
            raise ConfigError(f"queue_keys={queue_keys} holds no key; choose 1 or more")
        self.layout = QueueLayout(queue_keys, rank, ranks)
        self.cursor, self.fill = 0, 0
        rows = self.layout.rows
        self.register_buffer("keys_LC", torch.zeros(rows, key_size, dtype=dtype, device=device))
        self.register_buffer("ids_L", torch.full((rows,), NO_TEXT, dtype=torch.int64, device=device))
        # Of all that has entered since the start, the same on all ranks; and of what this rank has written.
        self.register_buffer("entered", torch.zeros((), dtype=torch.int64, device=device), persistent=False)
        self.register_buffer("written", torch.zeros((), dtype=torch.int64, device=device), persistent=False)
        self.restart_checks()

    @property
    def queue_keys(self) -> int:
        return self.layout.queue_keys

    @property
    def key_size(self) -> int:
        return self.keys_LC.shape[1]

    @property
    def device(self) -> torch.device:
        return self.ids_L.device

    @property
    def dtype(self) -> torch.dtype:
        return self.keys_LC.dtype

    @property
    def held(self) -> int:
        """Filled rows of this rank, the first ones."""
        return self.layout.held(self.fill)

    @torch.no_grad()
    def enqueue(self, keys_BC: Tensor, ids_B: Tensor) -> None:
        """Add any number of keys in order, the same on all ranks; each keeps those that fall into its slots."""
        batch, capacity = ids_B.shape[0], self.queue_keys
        assert keys_BC.shape == (batch, self.keys_LC.shape[1]), f"{tuple(keys_BC.shape)} keys for {batch} ids"
        keys_BC, ids_B = keys_BC.to(self.keys_LC), ids_B.to(self.ids_L)
        self.entered.mul_(31).add_(checksum(keys_BC)).mul_(31).add_(checksum(ids_B))
        dropped = max(0, batch - capacity)
        places_N, rows_N = self.layout.mine((self.cursor + torch.arange(dropped, batch)) % capacity)
        places_N, rows_N = (t.to(self.ids_L.device, non_blocking=True) for t in (places_N + dropped, rows_N))
        self.written.sub_(self._checksum(rows_N))
        self.keys_LC.index_copy_(0, rows_N, keys_BC[places_N])
        self.ids_L.index_copy_(0, rows_N, ids_B[places_N])
        self.written.add_(self._checksum(rows_N))
        self.cursor, self.fill = (self.cursor + batch) % capacity, min(self.fill + batch, capacity)

    def fragments(self, name: str, collectives: Gathers) -> list[Fragment]:
        """This rank's part of the ring in the section `name`, as that of a `KeyQueue`; rank 0 writes the cursor."""
        numbers = {"cursor": self.cursor, "fill": self.fill} if self.layout.rank == 0 else {}
        return self._parts(name) + [
            Fragment(f"{name}/{number}", (), 0, torch.tensor([value])) for number, value in numbers.items()
        ]

    def _parts(self, name: str) -> list[Fragment]:
        whole, width = (self.queue_keys, self.key_size), self.key_size
        found = []
        for run in self.layout.runs():
            keys_LC, ids_L = self.keys_LC[run.rows], self.ids_L[run.rows]
            found.append(Fragment(f"{name}/keys_KC", whole, run.slot * width, keys_LC.view(-1)))
            found.append(Fragment(f"{name}/ids_K", whole[:1], run.slot, ids_L))
        return found

    @torch.no_grad()
    def load(self, name: str, source: FragmentSource, collectives: Gathers) -> None:
        """Continue from the section `name` of a checkpoint of either kind of queue; a collective.

        Raises:
            CheckpointError: the saved queue has another size or type.
        """
        check_saved_queue(name, source, (self.queue_keys, self.key_size), self.dtype)
        source.read(self._parts(name))
        numbers = {number: torch.zeros((), dtype=torch.int64, device=self.device) for number in ("cursor", "fill")}
        read_replicated(source, {f"{name}/{number}": tensor for number, tensor in numbers.items()}, collectives)
        self.cursor, self.fill = int(numbers["cursor"]), int(numbers["fill"])
        self.restart_checks()

    def compared_tensors(self) -> dict[str, Tensor]:
        """What must be equal on all ranks."""
        numbers = {"cursor": self.cursor, "fill": self.fill}
        return {name: torch.tensor(n, device=self.ids_L.device) for name, n in numbers.items()} | {
            "keys that entered": self.entered
        }

    def is_as_written(self) -> bool:
        """Whether this rank's part still has the bits that were written into it."""
        return bool(self._checksum_of_all() == self.written)

    def restart_checks(self) -> None:
        """Take this rank's part as it is now for what was written."""
        self.entered.zero_()
        self.written.copy_(self._checksum_of_all())

    def _checksum(self, rows_N: Tensor) -> Tensor:
        """Of some rows, and of where they lie: a sum over them."""
        return _checksum(self.keys_LC[rows_N], self.ids_L[rows_N], rows_N)

    def _checksum_of_all(self) -> Tensor:
        rows = range(0, self.layout.rows, ROWS_AT_ONCE)
        device, total = self.ids_L.device, torch.zeros_like(self.written)
        for first in rows:
            keys_NC, ids_N = (whole[first : first + ROWS_AT_ONCE] for whole in (self.keys_LC, self.ids_L))
            total += _checksum(keys_NC, ids_N, torch.arange(first, first + len(ids_N), device=device))
        return total


def _checksum(keys_NC: Tensor, ids_N: Tensor, rows_N: Tensor) -> Tensor:
    return ((row_checksums(keys_NC) * 31 + ids_N) * (2 * rows_N + 1)).sum()
