"""The queue of keys: a ring buffer in tensors, so that it is saved, restored and compared like any other state.

Legend of the shape suffixes:
    B keys that enter together, K keys the queue holds, C width of a key
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spe_dist.errors import CheckpointError, ConfigError
from spe_dist.moco.fragments import Fragment, FragmentSource, Gathers, read_replicated, share_of

NO_TEXT = -1  # id in a slot that no key has filled yet


class KeyQueue(nn.Module):
    """The last `queue_keys` keys with ids of their texts; the oldest leave first. Equal ids are no negatives.

    Buffers: keys_KC in the queue's dtype, ids_K (int64, -1 where unfilled), cursor (0-dim int64, slot of the next key)
    and fill (0-dim int64, number of filled slots; they are slots 0..fill-1). All of it is in the state_dict.
    """

    keys_KC: Tensor
    ids_K: Tensor
    cursor: Tensor
    fill: Tensor

    def __init__(
        self,
        queue_keys: int,
        key_size: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if queue_keys < 1:
            raise ConfigError(f"queue_keys={queue_keys} holds no key; choose 1 or more")
        self.register_buffer("keys_KC", torch.zeros(queue_keys, key_size, dtype=dtype, device=device))
        self.register_buffer("ids_K", torch.full((queue_keys,), NO_TEXT, dtype=torch.int64, device=device))
        self.register_buffer("cursor", torch.zeros((), dtype=torch.int64, device=device))
        self.register_buffer("fill", torch.zeros((), dtype=torch.int64, device=device))

    @property
    def queue_keys(self) -> int:
        return self.ids_K.shape[0]

    @property
    def key_size(self) -> int:
        return self.keys_KC.shape[1]

    @property
    def device(self) -> torch.device:
        return self.ids_K.device

    @property
    def dtype(self) -> torch.dtype:
        return self.keys_KC.dtype

    def compared_tensors(self) -> dict[str, Tensor]:
        """What must be equal on all ranks."""
        return self.state_dict()

    @torch.no_grad()
    def enqueue(self, keys_BC: Tensor, ids_B: Tensor) -> None:
        """Add any number of keys in order, wrapping around; the result is that of adding them one by one."""
        batch, capacity = ids_B.shape[0], self.queue_keys
        assert keys_BC.shape == (batch, self.keys_KC.shape[1]), f"{tuple(keys_BC.shape)} keys for {batch} ids"
        dropped = max(0, batch - capacity)
        offsets = torch.arange(dropped, batch, device=self.cursor.device)
        slots = (self.cursor + offsets) % capacity
        self.keys_KC.index_copy_(0, slots, keys_BC[dropped:].to(self.keys_KC))
        self.ids_K.index_copy_(0, slots, ids_B[dropped:].to(self.ids_K))
        self.cursor.add_(batch).remainder_(capacity)
        self.fill.add_(batch).clamp_(max=capacity)

    def fragments(self, name: str, collectives: Gathers) -> list[Fragment]:
        """This rank's even share of each buffer, in the section `name`, as all ranks hold the same queue."""
        rank, ranks = collectives.rank, collectives.ranks
        return [share_of(f"{name}/{part}", buffer, rank, ranks) for part, buffer in self.named_buffers()]

    def load(self, name: str, source: FragmentSource, collectives: Gathers) -> None:
        """Continue from the section `name` of a checkpoint; a collective.

        Raises:
            CheckpointError: the saved queue has another size or type.
        """
        check_saved_queue(name, source, (self.queue_keys, self.key_size), self.dtype)
        read_replicated(source, {f"{name}/{part}": buffer for part, buffer in self.named_buffers()}, collectives)


def check_saved_queue(name: str, source: FragmentSource, shape: tuple[int, int], dtype: torch.dtype) -> None:
    """Compare the queue that a checkpoint has in the section `name` with this run's. Raises CheckpointError."""
    saved = source.describe(f"{name}/keys_KC")
    if saved is None:
        raise CheckpointError(f"the checkpoint holds no {name}; resume with its cspo, or use another checkpoint")
    if saved != (shape, dtype):
        raise CheckpointError(
            f"the saved {name} holds {list(saved[0])} {saved[1]}, this run's {list(shape)} {dtype}; resume with the "
            "checkpoint's queue_keys, queue_dtype and contrastive_size"
        )
