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
from spe_dist.moco.fragments import Fragment, FragmentSource
from spe_dist.moco.layout import FlatLayout, Interval, WeightSource, join
from spe_dist.moco.runs import Piece, runs_of, source_views, target_views
from spe_dist.moco.sharded_keys import ShardedKeys

KEY_AVERAGE = "key_average"  # sections of a checkpoint
SECTIONS = (KEY_AVERAGE, "key_compensation")


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
        with `start()` or `load()`; building is a collective. `compiled`: as `KeyAverage` takes it.

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
        self._holds_all = self.replicated and collectives.ranks > 1
        self._own_slices = list(self.layout.slices(source.intervals))
        start = sum(self._sizes[: collectives.rank]) if self._holds_all else 0
        self._own_P = slice(start, start + self._sizes[collectives.rank])
        self.sharded = parts is not None
        if parts is not None:
            assert not self.replicated and query is not None
            self._device = next(iter(query.parameters())).device
            ShardedKeys(module, parts, intervals_by_rank, collectives, self._average_P, self._wire_dtype, self._device)
            return
        pieces: dict[str, list[Piece]] = {name: [] for name in self._parameters}
        for s in self.layout.slices(joined_intervals):
            pieces[s.name].append(Piece(s.joined_offset, s.start, s.length))
        runs = {name: runs_of(of_parameter) for name, of_parameter in pieces.items()}
        self._runs = [run for of_parameter in runs.values() for run in of_parameter]
        self._targets = [
            view
            for name, parameter in self._parameters.items()
            for view in target_views(parameter.detach().view(-1), runs[name])
        ]

    def _average_P(self) -> Tensor:
        assert self.average is not None, "start() or load() comes first"
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
        assert self.average is not None, "start() or load() comes first"
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
        torch._foreach_copy_(self._targets, source_views(weights_F, self._runs))

    def fragments(self) -> list[Fragment]:
        """Average and compensation of the parameters' parts that this rank reads, whatever it holds beside them."""
        assert self.average is not None, "start() or load() comes first"
        return [
            Fragment(
                f"{section}/{s.name}",
                self.layout.slots[s.name].shape,
                s.start,
                held_P[self._own_P].narrow(0, s.joined_offset, s.length),
            )
            for section, held_P in zip(SECTIONS, (self.average.average_P, self.average.compensation_P), strict=True)
            for s in self._own_slices
        ]

    def load(self, source: FragmentSource) -> None:
        """Continue exactly where the saved average stood, at any number of ranks and layout; a collective.

        Raises:
            CheckpointError: the checkpoint's key encoder has other parameters.
        """
        for section in SECTIONS:
            self._check_names(section, source)
        self.finish()
        if self.average is None:
            numel = sum(self._sizes) if self._holds_all else self._sizes[self.collectives.rank]
            self.average = KeyAverage(torch.zeros(numel, device=self._home()), self.momentum, self.compiled)
        source.read(self.fragments())
        if self._holds_all:
            for held_P in (self.average.average_P, self.average.compensation_P):
                held_P.copy_(self.collectives.all_gather_uneven(held_P[self._own_P], self._sizes))
        self._publish()

    def named_tensors(self) -> dict[str, Tensor]:
        """What must be equal on all ranks: the module's parameters and buffers; of sharded weights the buffers."""
        return dict(self.module.named_buffers() if self.sharded else self.module.state_dict())

    def _home(self) -> torch.device:
        pieces = self.source.pieces()
        return self._device if self._holds_all or not pieces else pieces[0].device

    def _read(self) -> list[Tensor]:
        pieces = self.source.pieces()
        if not self._holds_all:
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

    def _check_names(self, section: str, source: FragmentSource) -> None:
        expected = {name: slot.shape for name, slot in self.layout.slots.items()}
        found = {name: source.describe(f"{section}/{name}") for name in {*expected, *source.names(section)}}
        wrong = sorted(n for n, saved in found.items() if saved is None or saved[0] != expected.get(n))
        if wrong:
            raise CheckpointError(
                f"the saved key encoder does not fit this model: {', '.join(wrong[:5])} "
                f"({len(wrong)} parameters differ); resume with the model settings of the checkpoint's config.yaml"
            )
