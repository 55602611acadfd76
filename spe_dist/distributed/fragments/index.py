"""The index of a checkpoint's tensors: which file holds which part of which tensor.

    tensors/index.json
        {"format": 1,
         "files": ["rank_00000.safetensors", ...],
         "tensors": {"weights/spe...": {"type": "float32", "shape": [768, 768], "parts": [[0, 0, 294912], ...]}},
         "values": {"adam_step": 1200, ...}}

A part is [number of its file, position of its first number in the flattened tensor, how many]; in its file it is named
"weights/spe...@0", by tensor and position.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spe_dist.errors import CheckpointError
from spe_dist.utils.reading.json_file import read_object, shown

INDEX_FILE = "index.json"
FORMAT = 1
MAX_BYTES = 1 << 30
TYPE_NAMES = "float64 float32 float16 bfloat16 bool uint8 int8 int16 int32 int64"
TYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in TYPE_NAMES.split()}
_FILE = re.compile(r"rank_\d{5,}\.safetensors")


@dataclass(frozen=True)
class Part:
    """`numel` numbers of a flattened tensor from `start` on, and the file that holds them."""

    file: str
    start: int
    numel: int


@dataclass(frozen=True)
class Entry:
    """A tensor of the checkpoint."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    parts: tuple[Part, ...]

    @property
    def numel(self) -> int:
        return torch.Size(self.shape).numel()


@dataclass(frozen=True)
class Index:
    """All tensors of a checkpoint by name, and the small values beside them."""

    tensors: Mapping[str, Entry]
    values: Mapping[str, Any]

    def names(self, section: str) -> list[str]:
        """The names of a section, without it."""
        prefix = f"{section}/"
        return [name.removeprefix(prefix) for name in self.tensors if name.startswith(prefix)]


def rank_file(rank: int) -> str:
    """The name of the file with a rank's parts."""
    return f"rank_{rank:05d}.safetensors"


def part_key(name: str, start: int) -> str:
    """What a part is named in its file."""
    return f"{name}@{start}"


def write_index(folder: Path, index: Index) -> None:
    """Write the index of a checkpoint's tensors into its folder."""
    files = sorted({part.file for entry in index.tensors.values() for part in entry.parts})
    number = {name: i for i, name in enumerate(files)}
    tensors = {
        name: {
            "type": str(entry.dtype).removeprefix("torch."),
            "shape": list(entry.shape),
            "parts": [[number[part.file], part.start, part.numel] for part in entry.parts],
        }
        for name, entry in sorted(index.tensors.items())
    }
    document = {"format": FORMAT, "files": files, "tensors": tensors, "values": dict(index.values)}
    (folder / INDEX_FILE).write_text(json.dumps(document, separators=(",", ":")), encoding="utf-8")


def read_index(folder: Path) -> Index:
    """The index in a folder of tensors. Raises CheckpointError where it is missing, damaged or of another format."""
    path = folder / INDEX_FILE
    try:
        document = read_object(path, "use another checkpoint of the run", CheckpointError, MAX_BYTES)
        if document["format"] != FORMAT:
            raise CheckpointError(
                f"{path} has format {shown(document['format'])}, this program reads {FORMAT}; use the version that "
                "wrote it"
            )
        files = [_checked_name(name) for name in document["files"]]
        tensors = {name: _read_entry(entry, files) for name, entry in document["tensors"].items()}
        return Index(tensors, dict(document["values"]))
    except CheckpointError:
        raise
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}: {error!s:.300}); use another checkpoint of the run"
        ) from None


def _read_entry(entry: Mapping[str, Any], files: list[str]) -> Entry:
    shape = tuple(_count(size) for size in entry["shape"])
    parts = tuple(Part(files[_count(file)], _count(start), _count(numel)) for file, start, numel in entry["parts"])
    made = Entry(TYPES[entry["type"]], shape, parts)
    position = 0
    for part in sorted(parts, key=lambda part: part.start):
        if part.start != position:
            raise ValueError(f"the parts of a tensor leave a gap at {position} or overlap")
        position += part.numel
    if position != made.numel:
        raise ValueError(f"the parts of a tensor hold {position} of {made.numel} numbers")
    return made


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value


def _checked_name(name: str) -> str:
    if not _FILE.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a rank's file")
    return name
