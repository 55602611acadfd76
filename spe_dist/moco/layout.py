"""All parameters of a module as one flat vector: who owns which part of it, and where a weight lies.

The key encoder's average is kept in parts of this vector. Its order is that of the state_dict, so it depends neither
on the number of ranks nor on how the engine cuts its parameters.

Legend of the shape suffixes:
    P numbers of some intervals of the flat vector, joined
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True, order=True)
class Interval:
    """The numbers start .. start + length - 1 of the flat vector."""

    start: int
    length: int


@dataclass(frozen=True)
class Slot:
    """Where one parameter lies in the flat vector."""

    offset: int
    numel: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ParameterSlice:
    """Part of one parameter: `length` numbers from its flat position `start`, at `joined_offset` of a vector P."""

    name: str
    start: int
    length: int
    joined_offset: int


@dataclass(frozen=True)
class FlatLayout:
    """Name -> slot of every parameter, in state_dict order; tied parameters count once."""

    slots: Mapping[str, Slot]
    numel: int

    @classmethod
    def of(cls, module: nn.Module) -> FlatLayout:
        """The layout of a module's parameters. Under ZeRO stage 3 they must be whole: take an unpartitioned copy."""
        return cls.of_shapes({name: tuple(parameter.shape) for name, parameter in module.named_parameters()})

    @classmethod
    def of_shapes(cls, shapes: Mapping[str, tuple[int, ...]]) -> FlatLayout:
        slots, offset = {}, 0
        for name, shape in shapes.items():
            slots[name] = Slot(offset, torch.Size(shape).numel(), tuple(shape))
            offset += slots[name].numel
        return cls(slots, offset)

    def slices(self, intervals: Iterable[Interval]) -> Iterator[ParameterSlice]:
        """The intervals, joined in the given order and cut at the borders of parameters."""
        names = [name for name, slot in self.slots.items() if slot.numel]
        ends = torch.tensor([self.slots[name].offset + self.slots[name].numel for name in names])
        joined = 0
        for interval in intervals:
            position, end = interval.start, interval.start + interval.length
            index = int(torch.searchsorted(ends, position, right=True))
            while position < end:
                slot = self.slots[names[index]]
                length = min(end, slot.offset + slot.numel) - position
                yield ParameterSlice(names[index], position - slot.offset, length, joined)
                position, joined, index = position + length, joined + length, index + 1

    def check_cover(self, intervals_by_rank: Sequence[Sequence[Interval]]) -> None:
        """Assert that the ranks' intervals cover the flat vector exactly once."""
        position = 0
        for interval in sorted(i for intervals in intervals_by_rank for i in intervals if i.length):
            name = self._name_at(min(position, interval.start))
            assert interval.start == position, f"{name}: owned by no rank or by two"
            position += interval.length
        assert position == self.numel, f"{self._name_at(position)}: owned by no rank"

    def _name_at(self, position: int) -> str:
        if position >= self.numel:
            return "end of the flat vector"
        return next(self.slices([Interval(position, 1)])).name


class WeightSource(Protocol):
    """Where the float32 weights that the key encoder follows come from.

    `intervals` are the parts of the flat vector that this rank reads; over all ranks they cover it exactly once and
    never change. `pieces()` gives these numbers as 1-d tensors that, joined, are the joined intervals: views where
    possible, so take no changes to them, and use them before the next optimizer step.
    """

    @property
    def intervals(self) -> Sequence[Interval]: ...

    def pieces(self) -> list[Tensor]: ...


def even_split(numel: int, rank: int, ranks: int) -> Interval:
    """Slice `rank` of a vector cut into `ranks` parts of equal length, the last ones shorter."""
    length = -(-numel // ranks)
    start = min(numel, rank * length)
    return Interval(start, min(numel, start + length) - start)


class PlainWeights:
    """The parameters of an ordinary module that every rank holds whole (no engine, or one without float32 masters)."""

    def __init__(self, module: nn.Module, rank: int = 0, ranks: int = 1) -> None:
        self._parameters = dict(module.named_parameters())
        layout = FlatLayout.of(module)
        self.intervals = [even_split(layout.numel, rank, ranks)]
        self._slices = list(layout.slices(self.intervals))

    def pieces(self) -> list[Tensor]:
        return [self._parameters[s.name].detach().reshape(-1).narrow(0, s.start, s.length) for s in self._slices]


def join(pieces: Sequence[Tensor], device: torch.device | None = None) -> Tensor:
    """The pieces as one new float32 vector P, on `device` or where they live."""
    if not pieces:
        return torch.empty(0, dtype=torch.float32, device=device)
    return torch.cat([piece.float() for piece in pieces]).to(device or pieces[0].device)


def merged(pieces: Sequence[Tensor]) -> list[Tensor]:
    """The same numbers in fewer pieces: 1-d views that lie one behind the other in memory become one."""
    runs: list[Tensor] = []
    for piece in pieces:
        if runs and _follows(runs[-1], piece):
            run = runs.pop()
            piece = run.as_strided((run.numel() + piece.numel(),), (1,), run.storage_offset())
        runs.append(piece)
    return runs


def _follows(run: Tensor, piece: Tensor) -> bool:
    same = (run.dtype, run.device) == (piece.dtype, piece.device) and run.is_contiguous() and piece.is_contiguous()
    in_one = same and run.untyped_storage().data_ptr() == piece.untyped_storage().data_ptr()
    return in_one and run.storage_offset() + run.numel() == piece.storage_offset()
