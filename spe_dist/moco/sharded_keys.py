"""Key weights that no rank holds whole: each part of the key encoder is gathered when it is used, and freed behind it.

What a rank keeps is its slice of the average alone. A part's weights are read from the ranks' slices, in the type that
the module computes in, so the keys are those of a whole module to the bit. While a part computes, the next one is on
its way: weights of two parts are in memory at most.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spe_dist.moco.layout import FlatLayout, Interval, ParameterSlice, join
from spe_dist.moco.runs import Piece, runs_of, source_views, target_views

PADDING = 1.125  # slices whose filling up to equal lengths takes no more than this are gathered at once


class _Part:
    """One part of the module, and which slices of its parameters each rank holds."""

    def __init__(self, module: nn.Module, prefix: str, by_rank: Sequence[Sequence[ParameterSlice]]) -> None:
        self._module, self._prefix = module, prefix
        shapes = {f"{prefix}.{name}": tuple(parameter.shape) for name, parameter in module.named_parameters()}
        self.layout = FlatLayout.of_shapes(shapes)
        self.slices_by_rank = [[s for s in slices if s.name in shapes] for slices in by_rank]
        own = [sum(s.length for s in slices) for slices in self.slices_by_rank]
        padded = len(own) * max(own) <= PADDING * sum(own)
        self.sizes = [max(own)] * len(own) if padded else own  # that are sent, by rank
        self.runs = runs_of(self._pieces())

    def _pieces(self) -> Iterator[Piece]:
        """Where in what the ranks send each slice lies, and where in the layout it belongs."""
        starts = itertools.accumulate(self.sizes, initial=0)
        for start, slices in zip(starts, self.slices_by_rank, strict=False):
            for s in slices:
                yield Piece(start, self.layout.slots[s.name].offset + s.start, s.length)
                start += s.length

    def place(self, whole: Tensor) -> None:
        """Make views of a flat vector, in the order of the layout, the parameters."""
        for name, slot in self.layout.slots.items():
            owner, _, leaf = name.removeprefix(f"{self._prefix}.").rpartition(".")
            values = whole.narrow(0, slot.offset, slot.numel).view(slot.shape)
            self._module.get_submodule(owner)._parameters[leaf] = nn.Parameter(values, requires_grad=False)


class ShardedKeys:
    """Makes the parts of a module, whose parameters are on `meta`, gather their weights around each forward pass.

    Every rank must call the module as often as the others, and in the same order as its other collectives.
    """

    def __init__(
        self,
        module: nn.Module,
        parts: Sequence[nn.Module],
        intervals_by_rank: Sequence[Sequence[Interval]],
        collectives: Any,
        read: Callable[[], Tensor],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """`parts`: in the order of their use; together they have all parameters. `read`: this rank's average, P."""
        layout = FlatLayout.of(module)
        by_rank = [list(layout.slices(intervals)) for intervals in intervals_by_rank]
        names = {part: name for name, part in module.named_modules()}
        self._parts = [_Part(part, names[part], by_rank) for part in parts]
        covered = [name for part in self._parts for name in part.layout.slots]
        assert sorted(covered) == sorted(layout.slots), sorted(set(layout.slots) ^ set(covered))
        self._collectives, self._read, self._dtype, self._device = collectives, read, dtype, device
        self._coming: tuple[int, Any, Tensor] | None = None  # a part on its way: its number, the gather, what it sends
        for number, part in enumerate(parts):
            part.register_forward_pre_hook(lambda *_, number=number: self._bring(number))
            part.register_forward_hook(lambda *_, number=number: self._free(number))

    def _start(self, number: int) -> None:
        part = self._parts[number]
        average_P = self._read()
        own = [average_P.narrow(0, s.joined_offset, s.length) for s in part.slices_by_rank[self._collectives.rank]]
        sent = join(own).to(self._dtype).to(self._device)
        sent = F.pad(sent, (0, part.sizes[self._collectives.rank] - sent.shape[0]))
        self._coming = number, self._collectives.start_gather(sent, part.sizes), sent

    @torch.no_grad()
    def _bring(self, number: int) -> None:
        if self._coming is None or self._coming[0] != number:
            assert self._coming is None, "the parts of the key encoder are used in another order than they are given in"
            self._start(number)
        assert self._coming is not None
        _, gathering, _ = self._coming
        received_F, self._coming = gathering.wait(), None
        part = self._parts[number]
        whole = torch.empty(part.layout.numel, dtype=self._dtype, device=self._device)
        torch._foreach_copy_(target_views(whole, part.runs), source_views(received_F, part.runs))
        part.place(whole)
        del gathering, received_F  # before the next part arrives
        if number + 1 < len(self._parts):
            self._start(number + 1)

    def _free(self, number: int) -> None:
        part = self._parts[number]
        part.place(torch.empty(part.layout.numel, dtype=self._dtype, device="meta"))
