"""Planners of torch.distributed.checkpoint for flat fragments: who writes what, and which saved parts a rank reads."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, Metadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import (
    LoadPlan,
    LoadPlanner,
    ReadItem,
    SavePlan,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from spe_dist.errors import CheckpointError
from spe_dist.moco.fragments import Fragment


class FragmentSavePlanner(DefaultSavePlanner):
    """Every rank writes its fragments. The metadata's `planner_data` are the shapes of the whole tensors by name.

    The default planner checks that the fragments of all ranks cover each tensor exactly once.
    """

    def __init__(self, fragments: Sequence[Fragment]) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)
        self.fragments = [fragment for fragment in fragments if fragment.tensor.numel()]
        self._tensors = {_index(fragment): fragment.tensor for fragment in self.fragments}
        assert len(self._tensors) == len(self.fragments), "two fragments begin at the same number of a tensor"

    def create_local_plan(self) -> SavePlan:
        items = [
            WriteItem(
                index=_index(fragment),
                type=WriteItemType.SHARD,
                tensor_data=TensorWriteData(
                    chunk=_chunk(fragment),
                    properties=TensorProperties(dtype=fragment.tensor.dtype),
                    size=torch.Size([fragment.whole_numel]),
                ),
            )
            for fragment in self.fragments
        ]
        self.plan = SavePlan(items, planner_data={fragment.name: fragment.shape for fragment in self.fragments})
        return self.plan

    def create_global_plan(self, all_plans: list[SavePlan]) -> tuple[list[SavePlan], Metadata]:
        plans, metadata = super().create_global_plan(all_plans)
        shapes = {name: shape for plan in all_plans for name, shape in plan.planner_data.items()}
        return plans, replace(metadata, planner_data=shapes)

    def lookup_object(self, index: MetadataIndex) -> Tensor:
        return self._tensors[index]


class FragmentLoadPlanner(LoadPlanner):
    """Every rank reads the saved parts that overlap its fragments, straight into their tensors."""

    def __init__(self, fragments: Sequence[Fragment]) -> None:
        self.fragments = [fragment for fragment in fragments if fragment.tensor.numel()]
        self._tensors = {_index(fragment): fragment.tensor for fragment in self.fragments}
        self._metadata: Metadata | None = None

    def set_up_planner(self, state_dict: Any, metadata: Metadata | None = None, is_coordinator: bool = False) -> None:
        self._metadata = metadata

    def create_local_plan(self) -> LoadPlan:
        assert self._metadata is not None
        items: list[ReadItem] = []
        for fragment in self.fragments:
            saved: Any = self._metadata.state_dict_metadata.get(fragment.name)
            if saved is None or self._metadata.planner_data[fragment.name] != fragment.shape:
                raise CheckpointError(
                    f"the checkpoint holds no {fragment.name} of shape {list(fragment.shape)}; resume with the model "
                    "settings of its config.yaml"
                )
            found = create_read_items_for_chunk_list(fragment.name, saved, [_chunk(fragment)])
            if sum(item.lengths[0] for item in found) != fragment.tensor.numel():
                raise CheckpointError(f"the checkpoint holds {fragment.name} in part only; use another one of the run")
            items += found
        return LoadPlan(items)

    def create_global_plan(self, global_plan: list[LoadPlan]) -> list[LoadPlan]:
        return global_plan

    def finish_plan(self, central_plan: LoadPlan) -> LoadPlan:
        return central_plan

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        raise AssertionError("fragments are tensors")

    def resolve_tensor(self, read_item: ReadItem) -> Tensor:
        tensor = self._tensors[read_item.dest_index]
        return tensor.detach().narrow(0, read_item.dest_offsets[0], read_item.lengths[0])

    def commit_tensor(self, read_item: ReadItem, tensor: Tensor) -> None:
        """Nothing: the tensor is filled in place."""


def _index(fragment: Fragment) -> MetadataIndex:
    return MetadataIndex(fragment.name, [fragment.start])


def _chunk(fragment: Fragment) -> ChunkStorageMetadata:
    return ChunkStorageMetadata(offsets=torch.Size([fragment.start]), sizes=torch.Size([fragment.tensor.numel()]))
