"""The first stage of a build on many machines: where the parts of the text begin, and their runs in groups.

Where a part begins follows from the lengths of what stands before it, in all files. So the files are measured first,
in any order; then each task reads the parts of its groups, with the numbers that they have in a build on one machine.
The runs of a group are merged into one, since each shard opens all runs: 64 parts in a group are 64 times fewer files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from spe_dist.data.build.duplicates import hashes_path, merge_hashes
from spe_dist.data.build.reading import TextReader
from spe_dist.data.build.runs import (
    PartSettings,
    RunsSummary,
    Tally,
    make_runs,
    merge_runs,
    record_path,
    run_path,
)
from spe_dist.data.build.settings import CONTINUE_REMEDY
from spe_dist.data.shards.manifest import SPLITS
from spe_dist.data.text.files import Part, PartStart, part_starts, read_parts, slice_sizes
from spe_dist.errors import DataError
from spe_dist.utils.files import write_atomically
from spe_dist.utils.parallel import map_in_order
from spe_dist.utils.reading.json_file import read_object

MAX_GROUP_PARTS = 64  # 128 MiB of text: what a task holds in memory while it merges
GROUPS_A_TASK = 4  # at least, so that the tasks end at about the same time
STARTS_NAME = "part_starts.json"


@dataclass(frozen=True)
class Groups:
    """The parts of the text in groups of consecutive ones."""

    starts: Sequence[PartStart]
    group_parts: int

    def __len__(self) -> int:
        return -(-len(self.starts) // self.group_parts)

    def parts_of(self, group: int) -> range:
        return range(group * self.group_parts, min(len(self.starts), (group + 1) * self.group_parts))

    def of_task(self, task: int, tasks: int) -> range:
        """Consecutive groups, equally many for each task, +-1."""
        return range(len(self) * task // tasks, len(self) * (task + 1) // tasks)

    @classmethod
    def load(cls, scratch: Path) -> Groups:
        content = read_object(scratch / STARTS_NAME, CONTINUE_REMEDY)
        return cls([PartStart(*start) for start in content["starts"]], content["group_parts"])


def measure_files(reader: TextReader, folder: Path, task: int, tasks: int) -> None:
    """Write the sizes of the slices of a task's share of the files, unless that was done before."""
    record = _sizes_path(folder, task, tasks)
    if not record.is_file():
        sizes = {
            number: slice_sizes(reader.files[number].path, reader.break_at, chunks=reader.chunks)
            for number in range(task, len(reader.files), tasks)
        }
        folder.mkdir(exist_ok=True)
        write_atomically(record, json.dumps(sizes))


def plan_groups(scratch: Path, folder: Path, tasks: int) -> Groups:
    """Find where the parts begin, from what all tasks have measured; done once, whatever the tasks are later.

    Raises:
        DataError: the files are empty.
    """
    if not (scratch / STARTS_NAME).is_file():
        sizes: dict[int, list[int]] = {}
        for task in range(tasks):
            found = read_object(_sizes_path(folder, task, tasks), CONTINUE_REMEDY)
            sizes |= {int(number): file_sizes for number, file_sizes in found.items()}
        starts = part_starts(sizes[number] for number in range(len(sizes)))
        if not starts:
            raise DataError("the input files hold no text; check their names")
        group_parts = min(MAX_GROUP_PARTS, max(1, len(starts) // (GROUPS_A_TASK * tasks)))
        write_atomically(scratch / STARTS_NAME, json.dumps({"group_parts": group_parts, "starts": starts}))
    return Groups.load(scratch)


def make_groups(settings: PartSettings, groups: Groups, folder: Path, task: int, tasks: int, processes: int) -> None:
    """Make the merged runs of a task's groups that have none, in `folder`."""
    folder.mkdir(exist_ok=True)
    missing = [group for group in groups.of_task(task, tasks) if not record_path(folder, group).is_file()]
    parts = {
        group: [part for part in groups.parts_of(group) if not record_path(settings.folder, part).is_file()]
        for group in missing
    }
    work = ((part, settings) for part in _read(settings, groups, list(chain(*parts.values()))))
    made = map_in_order(make_runs, work, processes)
    for group in missing:
        for _ in parts[group]:
            next(made)
        _merge_group(settings.folder, folder, groups.parts_of(group), group)
    next(made, None)  # ends its processes


def summary_of(groups: Groups, folder: Path, max_bad_share: float) -> RunsSummary:
    """What all groups held.

    Raises:
        DataError: too many lines are bad, or no sentence is left.
    """
    return _tally(record_path(folder, group) for group in range(len(groups))).summary(max_bad_share)


def _sizes_path(folder: Path, task: int, tasks: int) -> Path:
    return folder / f"{task:05d}-of-{tasks:05d}.json"


def _read(settings: PartSettings, groups: Groups, parts: Sequence[int]) -> Iterator[Part]:
    """The parts with these numbers, which ascend."""
    if not parts:
        return
    paths = [file.path for file in settings.reader.files]
    wanted = set(parts)
    reader, start = settings.reader, groups.starts[parts[0]]
    for part in read_parts(paths, reader.break_at, start=start, chunks=reader.chunks):
        if part.index in wanted:
            yield part
        if part.index == parts[-1]:
            return


def _merge_group(parts_folder: Path, folder: Path, parts: range, group: int) -> None:
    """Merge the runs of the parts, add up their records, and remove what is no longer needed. The record comes last."""
    for split in SPLITS:
        merge_runs([run_path(parts_folder, part, split) for part in parts], run_path(folder, group, split))
    merge_hashes([hashes_path(parts_folder, part) for part in parts], hashes_path(folder, group))
    tally = _tally(record_path(parts_folder, part) for part in parts)
    write_atomically(record_path(folder, group), json.dumps(tally.record()))
    for part in parts:
        for split in SPLITS:
            run_path(parts_folder, part, split).unlink()
        hashes_path(parts_folder, part).unlink()
        record_path(parts_folder, part).unlink()


def _tally(records: Iterable[Path]) -> Tally:
    tally = Tally()
    for path in records:
        tally.add(read_object(path, CONTINUE_REMEDY))
    return tally
