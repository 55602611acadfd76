"""What all batches without padding share: their length, and moving all of their tensors at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class BatchTensors:
    """Q sequences one behind the other as T tokens, the fields of a batch that an encoder reads."""

    piece_ids_T: Tensor  # int64: as the model sees them
    positions_T: Tensor  # int64: 0 at each [CLS]
    cu_seqlens_Q1: Tensor  # int32: borders of the sequences in T, first 0, last T

    @property
    def n_sequences(self) -> int:
        return self.cu_seqlens_Q1.shape[0] - 1

    @property
    def n_tokens(self) -> int:
        return self.piece_ids_T.shape[0]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        return self._map(Tensor.pin_memory)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Self:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return type(self)(**{k: function(v) if isinstance(v, Tensor) else v for k, v in values.items()})
