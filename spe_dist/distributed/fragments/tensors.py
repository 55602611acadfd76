"""The tensors of a checkpoint: captured on each rank, written and read by all of them, or read whole by one process."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError, safe_open
from torch import Tensor

from spe_dist.distributed.fragments.index import INDEX_FILE, Index, Part, part_key, read_index
from spe_dist.distributed.fragments.planners import FragmentLoadPlanner, FragmentSavePlanner
from spe_dist.distributed.fragments.storage import FragmentReader, FragmentWriter
from spe_dist.errors import CheckpointError
from spe_dist.moco.fragments import Fragment, Fragmented
from spe_dist.utils.run_files import TENSORS_FOLDER

# One process without ranks is meant where there is no process group.
warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized", UserWarning)


class Captured:
    """What a rank writes of some states. `write` needs neither them nor an engine, so that it may run in a thread."""

    def __init__(self, states: Sequence[Fragmented], copy: bool = False) -> None:
        """`copy`: take copies in main memory; else `write` must end before the states change."""
        found = [fragment for state in states for fragment in state.fragments()]
        self.fragments = [replace(f, tensor=_copied(f.tensor)) for f in found] if copy else found
        self.values = {name: value for state in states for name, value in state.values().items()}

    @property
    def bytes(self) -> int:
        return sum(fragment.tensor.nbytes for fragment in self.fragments)

    def write(self, folder: Path, group: Any) -> None:
        """Write them into `folder`/tensors; a collective of the process group, None where there is one process only.

        Raises:
            OSError: a file cannot be written, on any rank.
        """
        folder = folder / TENSORS_FOLDER
        folder.mkdir(exist_ok=True)
        rank = dist.get_rank(group) if group is not None else 0
        _without_wrapping(
            lambda: dcp.save(
                {},
                storage_writer=FragmentWriter(folder, rank, self.values),
                planner=FragmentSavePlanner(self.fragments),
                process_group=group,
                no_dist=group is None,
            )
        )


class CheckpointTensors:
    """The tensors of a checkpoint that is read by all ranks of a process group, None where there is one process only.

    A `FragmentSource` for the states that continue from it.
    """

    def __init__(self, checkpoint: Path, group: Any) -> None:
        """Raises CheckpointError where the index cannot be read."""
        self.folder = checkpoint / TENSORS_FOLDER
        self.index: Index = read_index(self.folder)
        self._group = group

    @property
    def values(self) -> Mapping[str, Any]:
        return self.index.values

    def names(self, section: str) -> list[str]:
        return self.index.names(section)

    def describe(self, name: str) -> tuple[tuple[int, ...], torch.dtype] | None:
        entry = self.index.tensors.get(name)
        return None if entry is None else (entry.shape, entry.dtype)

    def read(self, fragments: Sequence[Fragment]) -> None:
        """Fill the fragments' tensors; a collective. Raises CheckpointError."""
        _without_wrapping(
            lambda: dcp.load(
                {},
                storage_reader=FragmentReader(self.folder, self.index, {fragment.name for fragment in fragments}),
                planner=FragmentLoadPlanner(fragments),
                process_group=self._group,
                no_dist=self._group is None,
            )
        )


def held_tensors(states: Iterable[Fragmented | None]) -> list[tuple[str, Tensor]]:
    """All tensors that this rank would write of the states that there are, by name."""
    return [(f.name, f.tensor) for state in states if state is not None for f in state.fragments()]


def read_whole(checkpoint: Path, section: str) -> dict[str, Tensor]:
    """All tensors of a section by name, in one process. Raises CheckpointError."""
    folder = checkpoint / TENSORS_FOLDER
    index = read_index(folder)
    tensors: dict[str, Tensor] = {}
    parts: dict[str, list[tuple[str, Part]]] = {}
    for name in index.names(section):
        for part in index.tensors[f"{section}/{name}"].parts:
            parts.setdefault(part.file, []).append((name, part))
    for file, wanted in parts.items():
        _check_size(folder / file, [index.tensors[f"{section}/{name}"].dtype.itemsize * p.numel for name, p in wanted])
    for name in index.names(section):
        entry = index.tensors[f"{section}/{name}"]
        tensors[name] = torch.empty(entry.shape, dtype=entry.dtype)
    for file, wanted in parts.items():
        try:
            with safe_open(folder / file, framework="pt") as opened:
                for name, part in wanted:
                    numbers = opened.get_tensor(part_key(f"{section}/{name}", part.start))
                    tensors[name].view(-1).narrow(0, part.start, part.numel).copy_(numbers)
        except (SafetensorError, OSError, RuntimeError) as error:
            raise CheckpointError(f"{folder / file} cannot be read ({error}); use another checkpoint") from None
    return tensors


def _check_size(file: Path, parts_bytes: Sequence[int]) -> None:
    """Check that a file can hold what the index says, before memory is taken for it. Raises CheckpointError."""
    try:
        found = file.stat().st_size
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read ({error.strerror}); use another checkpoint") from None
    if found < sum(parts_bytes):
        raise CheckpointError(
            f"{file} has {found:,} bytes, but {INDEX_FILE} has parts of {sum(parts_bytes):,} bytes in it; use another "
            "checkpoint"
        )


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)


def _without_wrapping(work: Callable[[], Any]) -> None:
    """Raise what the first rank that failed raised, in place of torch's report on all of them."""
    try:
        work()
    except dcp.CheckpointException as report:
        error, _ = report.failures[min(report.failures)]
        raise error from None
