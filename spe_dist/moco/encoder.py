"""The key encoder: a module outside the engine whose weights are the moving average of the query's.

Each rank averages the intervals of the flat parameter vector that it reads anyway ("sharded"), or everything
("replicated"); either way all ranks end with bit-equal weights in the key module, or in the part in use where that is
sharded too.

Legend of the shape suffixes:
    P numbers that this rank averages, F numbers of the whole flat vector joined in rank order
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from spe_dist.errors import CheckpointError
from spe_dist.moco.average import KeyAverage
from spe_dist.moco.layout import FlatLayout, Interval, ParameterSlice, WeightSource, join
from spe_dist.moco.sharded_keys import ShardedKeys


class Gathering(Protocol):
    """A gather that may still be under way."""

    @property
    def done(self) -> bool: ...

    def wait(self) -> Tensor: ...


class Collectives(Protocol):
    """What is handed in to talk to the other ranks; every call is made by all of them in the same order."""

    @property
    def rank(self) -> int: ...

    @property
    def ranks(self) -> int: ...

    def all_gather_rows(self, tensor: Tensor) -> Tensor:
        """[n, ...] on each rank, equal n -> [ranks * n, ...] in rank order."""

    def all_gather_uneven(self, tensor_1d: Tensor, sizes: list[int]) -> Tensor:
        """1-d tensors of the given sizes by rank -> all of them joined in rank order."""

    def start_gather(self, tensor_1d: Tensor, sizes: list[int]) -> Gathering:
        """The same without waiting for it; the tensor stays as it is until the caller has."""

    def exchange_rows(self, rows: Tensor, sizes: list[int]) -> Tensor:
        """[sum of sizes, ...], `sizes[r]` rows for rank r -> [ranks, sizes[rank], ...]: this rank's, by sender."""

    def all_gather_object(self, obj: Any) -> list[Any]:
        """One object a rank -> all of them in rank order."""


class MomentumKeyEncoder:
    """`module` follows the weights of `source` by theta_k <- m theta_k + (1 - m) theta_q, kept in float32.

    The ranks' parts of the new weights are exchanged while other work is done; whoever takes `module` waits for them.

    The average lives where the source's pieces live (the CPU under optimizer offload), so that an update moves nothing;
    "replicated" on several ranks keeps it on the key module's device, where the gathered source arrives.
    """

    def __init__(
        self,
        module: nn.Module,
        source: WeightSource,
        collectives: Collectives,
        momentum: float = 0.999,
        average: Literal["sharded", "replicated"] = "sharded",
        query: nn.Module | None = None,
        compiled: bool | None = None,
        parts: Sequence[nn.Module] | None = None,
    ) -> None:
        """`module`: a copy of the query's module, its parameters whole on this rank, in the type it computes in.

        `query`: the module that the source reads from; only its buffers are taken, each time the weights are. Start
        with `start()` or `load_state_dict()`; building is a collective. `compiled`: as `KeyAverage` takes it.

        `parts`: of `module`, in the order of their use, where its weights are to be sharded over the ranks: those of
        one part are gathered whenever it is called (`ShardedKeys`). The parameters are on `meta` then.
        """
        self._module = module
        self._gathering: Gathering | None = None  # weights on their way into the module
        self.source = source
        self.collectives = collectives
        self.momentum = momentum
        self.replicated = average == "replicated"
        self.query = query
        self.compiled = compiled
        self.layout = FlatLayout.of(module)
        self.average: KeyAverage | None = None
        self._parameters = dict(module.named_parameters())
        dtypes = {parameter.dtype for parameter in self._parameters.values()}
        self._wire_dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
        self._device = next(iter(self._parameters.values())).device
        intervals_by_rank: list[list[Interval]] = collectives.all_gather_object(list(source.intervals))
        self.layout.check_cover(intervals_by_rank)
        self._sizes = [sum(interval.length for interval in intervals) for intervals in intervals_by_rank]
        joined_intervals = [interval for intervals in intervals_by_rank for interval in intervals]
        self._slices_F = list(self.layout.slices(joined_intervals))
        held = joined_intervals if self.replicated else list(source.intervals)
        self._slices_P = list(self.layout.slices(held))
        self._lengths_F = [s.length for s in self._slices_F]
        self.sharded = parts is not None
        if parts is not None:
            assert not self.replicated and query is not None
            self._device = next(iter(query.parameters())).device
            ShardedKeys(module, parts, intervals_by_rank, collectives, self._average_P, self._wire_dtype, self._device)
            return
        self._targets_F = [
            self._parameters[s.name].detach().view(-1).narrow(0, s.start, s.length) for s in self._slices_F
        ]

    def _average_P(self) -> Tensor:
        assert self.average is not None, "start() or load_state_dict() comes first"
        return self.average.average_P

    @property
    def module(self) -> nn.Module:
        """The module with the newest weights; waits for those that are on their way."""
        self.finish()
        return self._module

    def start(self) -> None:
        """Begin as an exact copy of the query: the average is its float32 weights, `module` these in its own type."""
        self.finish()
        self.average = KeyAverage(join(self._read(), self._home()), self.momentum, self.compiled)
        self._publish()

    def follow(self) -> None:
        """Move one step towards the query; to be called after each applied optimizer step.

        The new weights are sent on their way; the next use of `module` waits for them.
        """
        assert self.average is not None, "start() or load_state_dict() comes first"
        self.finish()
        self.average.update(self._read())
        self._publish()

    def finish(self) -> None:
        """Wait for weights that are on their way, and write them into the module."""
        if self._gathering is not None:
            gathering, self._gathering = self._gathering, None
            self._write(gathering.wait())

    @torch.no_grad()
    def _write(self, weights_F: Tensor) -> None:
        torch._foreach_copy_(self._targets_F, list(weights_F.split(self._lengths_F)))

    def state_dict(self) -> dict[str, dict[str, Tensor]] | None:
        """{"average": {name: float32}, "compensation": same} on the CPU of rank 0, None elsewhere; a collective.

        It holds whole parameters by name, so that it loads at any number of ranks and under any cut.
        """
        assert self.average is not None, "start() or load_state_dict() comes first"
        self.finish()
        parts = {"average": self.average.average_P, "compensation": self.average.compensation_P}
        state = {key: self._by_name(self._gather_held(part_P)) for key, part_P in parts.items()}
        return state if self.collectives.rank == 0 else None

    def load_state_dict(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Continue exactly where `state_dict()` stood; every rank is given the same state."""
        for key in ("average", "compensation"):
            self._check_names(state[key])
        self.finish()
        average_P, compensation_P = (self._held_part(state[key]) for key in ("average", "compensation"))
        if self.average is None:
            self.average = KeyAverage(average_P, self.momentum, self.compiled)
        self.average.restore(average_P, compensation_P)
        self._publish()

    def named_tensors(self) -> dict[str, Tensor]:
        """What must be equal on all ranks: the module's parameters and buffers; of sharded weights the buffers."""
        return dict(self.module.named_buffers() if self.sharded else self.module.state_dict())

    def _home(self) -> torch.device:
        pieces = self.source.pieces()
        replicated_over_ranks = self.replicated and self.collectives.ranks > 1
        return self._device if replicated_over_ranks or not pieces else pieces[0].device

    def _read(self) -> list[Tensor]:
        pieces = self.source.pieces()
        if not self.replicated or self.collectives.ranks == 1:
            return pieces
        return [self.collectives.all_gather_uneven(join(pieces, self._device), self._sizes)]

    @torch.no_grad()
    def _publish(self) -> None:
        """Bring the average into the key module of every rank, or begin to: one gather in the module's type."""
        assert self.average is not None
        if self.query is not None:
            queried = dict(self.query.named_buffers())
            for name, buffer in self._module.named_buffers():
                buffer.copy_(queried[name])
        if self.sharded:
            return
        part_P = self.average.average_P.to(self._wire_dtype).to(self._device)
        if self.replicated:
            self._write(part_P)
        else:
            self._gathering = self.collectives.start_gather(part_P, self._sizes)
            if self._gathering.done:
                self.finish()

    def _gather_held(self, part_P: Tensor) -> Tensor:
        part_P = part_P.to(self._device)
        return part_P if self.replicated else self.collectives.all_gather_uneven(part_P, self._sizes)

    def _by_name(self, whole_F: Tensor) -> dict[str, Tensor]:
        if self.collectives.rank != 0:
            return {}
        whole_F = whole_F.cpu()
        named = {name: torch.empty(slot.shape) for name, slot in self.layout.slots.items()}
        for s in self._slices_F:
            named[s.name].view(-1)[s.start : s.start + s.length] = whole_F[s.joined_offset : s.joined_offset + s.length]
        return named

    def _held_part(self, named: dict[str, Tensor]) -> Tensor:
        def part(s: ParameterSlice) -> Tensor:
            return named[s.name].reshape(-1).narrow(0, s.start, s.length)

        return join([part(s) for s in self._slices_P]).to(self._home())

    def _check_names(self, named: dict[str, Tensor]) -> None:
        saved = {name: tuple(tensor.shape) for name, tensor in named.items()}
        expected = {name: slot.shape for name, slot in self.layout.slots.items()}
        if saved != expected:
            wrong = sorted(n for n in saved.keys() | expected.keys() if saved.get(n) != expected.get(n))
            raise CheckpointError(
                f"the saved key encoder does not fit this model: {', '.join(wrong[:5])} "
                f"({len(wrong)} parameters differ); resume with the model settings of the checkpoint's config.yaml"
            )
