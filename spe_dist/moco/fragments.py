"""How a state that is spread over ranks is described to a checkpoint: as named parts of flat tensors.

What writes and reads them is handed in, so that a state needs to know neither files nor torch.distributed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from spe_dist.moco.layout import even_split


@dataclass(frozen=True)
class Fragment:
    """Numbers `start` and following of a tensor, flattened row by row, that this rank holds.

    Attributes:
        name: "SECTION/NAME", one of its kind in a checkpoint.
        shape: of the whole tensor over all ranks.
        start: position of the first number.
        tensor: the numbers, 1-d; a view of the state, as it is filled in place when a checkpoint is read.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    tensor: Tensor

    @property
    def whole_numel(self) -> int:
        return torch.Size(self.shape).numel()


class FragmentSource(Protocol):
    """A checkpoint that is being read."""

    @property
    def values(self) -> Mapping[str, Any]:
        """The small values beside the tensors."""

    def names(self, section: str) -> list[str]:
        """The names of a section, without it."""

    def describe(self, name: str) -> tuple[tuple[int, ...], torch.dtype] | None:
        """Shape and type of a tensor by its full name; None where there is none of this name."""

    def read(self, fragments: Sequence[Fragment]) -> None:
        """Fill the fragments' tensors, in their own types; a collective, which every rank calls as often."""


class Fragmented(Protocol):
    """A state that checkpoints keep."""

    def fragments(self) -> list[Fragment]:
        """What this rank writes. Over all ranks it is every number once."""

    def values(self) -> dict[str, Any]:
        """Small values for JSON; those of rank 0 are written."""

    def load(self, source: FragmentSource) -> None:
        """Continue exactly from a checkpoint of any number of ranks; a collective. Raises CheckpointError."""


class Gathers(Protocol):
    """The collective that a replicated state is read with."""

    @property
    def rank(self) -> int: ...

    @property
    def ranks(self) -> int: ...

    def all_gather_uneven(self, tensor_1d: Tensor, sizes: list[int]) -> Tensor: ...


def share_of(name: str, tensor: Tensor, rank: int, ranks: int) -> Fragment:
    """This rank's even share of a contiguous tensor that all ranks hold alike; empty where it has few numbers."""
    flat = tensor.detach().view(-1)
    part = even_split(flat.numel(), rank, ranks)
    return Fragment(name, tuple(tensor.shape), part.start, flat.narrow(0, part.start, part.length))


def read_replicated(source: FragmentSource, named: Mapping[str, Tensor], collectives: Gathers) -> None:
    """Fill tensors that all ranks hold alike: each rank reads its share, and they exchange them; a collective."""
    rank, ranks = collectives.rank, collectives.ranks
    shares = [share_of(name, tensor, rank, ranks) for name, tensor in named.items()]
    source.read(shares)
    if ranks == 1:
        return
    for share, tensor in zip(shares, named.values(), strict=True):
        sizes = [even_split(tensor.numel(), other, ranks).length for other in range(ranks)]
        tensor.view(-1).copy_(collectives.all_gather_uneven(share.tensor, sizes))
