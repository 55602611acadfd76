"""Storage of torch.distributed.checkpoint in safetensors files, one a rank, with a JSON index: nothing is pickled.

torch's own writer pickles its metadata, and its safetensors writer leaves none of tensors that are spread over ranks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem, SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from spe_dist.distributed.fragments.index import Entry, Index, Part, part_key, rank_file, write_index
from spe_dist.errors import CheckpointError
from spe_dist.utils.files import flush


class FragmentWriter(StorageWriter):
    """Writes a rank's fragments into its file, and on rank 0 the index of all ranks' files."""

    def __init__(self, folder: Path, rank: int, values: Mapping[str, Any]) -> None:
        self.folder = folder
        self.file = rank_file(rank)
        self.values = values

    def reset(self, checkpoint_id: Any = None) -> None:
        """Nothing is kept between checkpoints."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """The folder is there."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        tensors = {_key(item.index): _on_cpu(planner.resolve_data(item)) for item in plan.items}
        if tensors:
            path = self.folder / self.file
            try:
                save_file(tensors, path)
            except SafetensorError as error:
                raise OSError(f"{path.name}: {error}") from None
            flush(path)
        return _done([WriteResult(item.index, tensors[_key(item.index)].nbytes, self.file) for item in plan.items])

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        files = {result.index: result.storage_data for rank_results in results for result in rank_results}
        tensors = {}
        for name, saved in metadata.state_dict_metadata.items():
            assert isinstance(saved, TensorStorageMetadata)
            parts = [
                Part(files[MetadataIndex(name, chunk.offsets)], chunk.offsets[0], chunk.sizes[0])
                for chunk in saved.chunks
            ]
            tensors[name] = Entry(saved.properties.dtype, tuple(metadata.planner_data[name]), tuple(parts))
        write_index(self.folder, Index(tensors, self.values))

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return False  # it is handed in, never chosen by a path


class FragmentReader(StorageReader):
    """Reads the parts of some tensors that this rank needs, slice by slice."""

    def __init__(self, folder: Path, index: Index, names: Iterable[str]) -> None:
        self.folder = folder
        self.entries = {name: index.tensors[name] for name in names if name in index.tensors}

    def reset(self, checkpoint_id: Any = None) -> None:
        """Nothing is kept between checkpoints."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        shapes = {name: entry.shape for name, entry in self.entries.items()}
        return Metadata({name: _describe(entry) for name, entry in self.entries.items()}, planner_data=shapes)

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """The index is there."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        file_of = {
            (name, part.start): part.file for name, entry in self.entries.items() for part in entry.parts if part.numel
        }
        by_file: dict[str, list[ReadItem]] = defaultdict(list)
        for item in plan.items:
            assert item.storage_index.offset is not None
            by_file[file_of[item.storage_index.fqn, item.storage_index.offset[0]]].append(item)
        for file, items in by_file.items():
            self._read_file(file, items, planner)
        return _done(None)

    def _read_file(self, file: str, items: list[ReadItem], planner: LoadPlanner) -> None:
        try:
            with safe_open(self.folder / file, framework="pt") as opened:
                for item in items:
                    start = item.storage_offsets[0]
                    numbers = opened.get_slice(_key(item.storage_index))[start : start + item.lengths[0]]
                    target = planner.resolve_tensor(item)
                    target.copy_(numbers)
                    planner.commit_tensor(item, target)
        except (SafetensorError, OSError, RuntimeError) as error:
            raise CheckpointError(f"{self.folder / file} cannot be read ({error}); use another checkpoint") from None

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return False


def _describe(entry: Entry) -> TensorStorageMetadata:
    chunks = [ChunkStorageMetadata(torch.Size([part.start]), torch.Size([part.numel])) for part in entry.parts]
    return TensorStorageMetadata(TensorProperties(dtype=entry.dtype), torch.Size([entry.numel]), chunks)


def _key(index: MetadataIndex) -> str:
    assert index.offset is not None
    return part_key(index.fqn, index.offset[0])


def _on_cpu(tensor: Any) -> torch.Tensor:
    return tensor.detach().to("cpu").contiguous()


def _done(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future
