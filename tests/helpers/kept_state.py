"""States as checkpoints keep them: put together from the fragments of all ranks, saved and loaded without a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spe_dist.distributed.context import RankContext
from spe_dist.distributed.fragments.tensors import Captured, CheckpointTensors
from spe_dist.moco.fragments import Fragment, Fragmented


def whole_state(state: Fragmented, collectives: Any) -> dict[str, Tensor]:
    """Copies of all tensors of a state by full name, on every rank; each number must be there once. A collective."""
    return whole_of(state.fragments(), collectives)


def whole_of(fragments: Sequence[Fragment], collectives: Any) -> dict[str, Tensor]:
    """The same of some fragments."""
    own = [(f.name, f.shape, f.start, f.tensor.detach().cpu().clone()) for f in fragments]
    whole: dict[str, Tensor] = {}
    seen: dict[str, Tensor] = {}
    for parts in collectives.all_gather_object(own):
        for name, shape, start, numbers in parts:
            tensor = whole.setdefault(name, torch.empty(shape, dtype=numbers.dtype))
            tensor.view(-1)[start : start + numbers.numel()] = numbers
            counts = seen.setdefault(name, torch.zeros(tensor.numel(), dtype=torch.int64))
            counts[start : start + numbers.numel()] += 1
    assert all(bool((counts == 1).all()) for counts in seen.values())
    return whole


class MemorySource:
    """Whole tensors in place of a checkpoint's files."""

    def __init__(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any] | None = None) -> None:
        self.tensors = dict(tensors)
        self.values = dict(values or {})

    def names(self, section: str) -> list[str]:
        return [name.split("/", 1)[1] for name in self.tensors if name.startswith(f"{section}/")]

    def describe(self, name: str) -> tuple[tuple[int, ...], torch.dtype] | None:
        tensor = self.tensors.get(name)
        return None if tensor is None else (tuple(tensor.shape), tensor.dtype)

    def read(self, fragments: Sequence[Fragment]) -> None:
        for fragment in fragments:
            numbers = self.tensors[fragment.name].reshape(-1)
            fragment.tensor.copy_(numbers[fragment.start : fragment.start + fragment.tensor.numel()])


def save_states(folder: Path, context: RankContext, *states: Fragmented | None) -> None:
    """Write the tensors of states into a checkpoint's folder; a collective."""
    context.run_on_main(lambda: folder.mkdir(parents=True, exist_ok=True))
    Captured([state for state in states if state is not None]).write(folder, context.control)
    context.barrier()


def load_states(folder: Path, context: RankContext, *states: Fragmented | None) -> None:
    """Continue the states from what `save_states` wrote; a collective."""
    source = CheckpointTensors(folder, context.control)
    for state in states:
        if state is not None:
            state.load(source)
