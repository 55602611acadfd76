"""A build of shards on many machines: the same stages as on one, each divided into tasks, and the same bytes.

A stage's tasks need nothing of each other and share the output folder. They run under datatrove's executors, which keep
track of what is done: a task that was lost runs again when the same command is given again, and passes over what it had
finished. Stages of one task join what the tasks before them have found.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from spe_dist.data.build.duplicates import Duplicates, find_ranges
from spe_dist.data.build.finish import write_manifest
from spe_dist.data.build.groups import Groups, make_groups, measure_files, plan_groups, summary_of
from spe_dist.data.build.plan import SCRATCH_FOLDER
from spe_dist.data.build.reading import TextReader
from spe_dist.data.build.runs import PartSettings, RunsSummary
from spe_dist.data.build.settings import CONTINUE_REMEDY, BuildSettings
from spe_dist.data.build.stages import (
    ShardRecord,
    ShardTask,
    by_split,
    duplicates_of,
    finished_record,
    make_shard,
    shard_tasks,
    train_tokenizer,
    write_tokenizer,
)
from spe_dist.data.shards.manifest import MANIFEST_NAME, TOKENIZER_FOLDER
from spe_dist.data.text.vocabulary import load_tokenizer
from spe_dist.errors import SpeError
from spe_dist.utils.files import write_atomically
from spe_dist.utils.parallel import map_in_order
from spe_dist.utils.reading.json_file import read_object


@dataclass(frozen=True)
class Stage:
    """A step of a build, called by an executor once for each task."""

    build: DividedBuild
    name: str
    tasks: int

    def __call__(self, _documents: Any, task: int, tasks: int) -> None:
        """Do one task's share; a user's error is also left in a file for the process that waits for the build."""
        assert tasks == self.tasks
        work: Callable[[int], None] = getattr(self.build, self.name)
        failure = self.build.failures / f"{self.name}-{task:05d}.txt"
        try:
            work(task)
        except SpeError as error:
            self.build.failures.mkdir(parents=True, exist_ok=True)
            write_atomically(failure, f"{self.name}, task {task}: {error}\n")
            raise
        failure.unlink(missing_ok=True)

    def __repr__(self) -> str:
        return f"SPE shards: {self.name}"


@dataclass(frozen=True)
class DividedBuild:
    """What all tasks of a build have in common. Picklable.

    output: the folder of the shards, shared by all machines
    tasks: into which each stage is divided
    processes: of each task
    request: the plan's content, for the manifest
    """

    output: Path
    reader: TextReader
    settings: BuildSettings
    tokenizer_name: str
    request: dict[str, Any]
    max_bad_share: float
    tasks: int
    processes: int

    @property
    def stages(self) -> list[Stage]:
        """In the order in which they depend on each other."""
        divided = {"measure", "split", "duplicates", "shards"}
        trained = ("vocabulary",) if self.settings.train_vocab is not None else ()
        names = ("measure", "plan", "split", "check", "duplicates", *trained, "shards", "manifest")
        return [Stage(self, name, self.tasks if name in divided else 1) for name in names]

    def measure(self, task: int) -> None:
        """Measure this task's files, which tells where the parts of the text begin."""
        measure_files(self.reader, self._sizes, task, self.tasks)

    def plan(self, _task: int) -> None:
        """Cut the text into parts and these into groups."""
        plan_groups(self.scratch, self._sizes, self.tasks)

    def split(self, task: int) -> None:
        """Split the parts of this task's groups into words, as sorted runs."""
        make_groups(self._part_settings, self._groups, self._runs, task, self.tasks, self.processes)

    def check(self, _task: int) -> None:
        """Check what the text held."""
        summary = summary_of(self._groups, self._runs, self.max_bad_share)
        write_atomically(self._summary_path, json.dumps(asdict(summary)))

    def duplicates(self, task: int) -> None:
        """Find the duplicates in this task's ranges of hashes."""
        find_ranges(self._duplicates, range(task, self._duplicates.ranges, self.tasks), self.processes)

    def vocabulary(self, _task: int) -> None:
        """Train a vocabulary on the sentences that are kept."""
        parts, n_parts = self.scratch / "parts", len(self._groups.starts)
        write_tokenizer(
            self.output, lambda: train_tokenizer(self.settings, parts, n_parts, self._duplicates, self.processes)
        )

    def shards(self, task: int) -> None:
        """Make this task's shards."""
        self._make_missing(self._shard_tasks[task :: self.tasks])

    def manifest(self, _task: int) -> None:
        """Write the manifest: now the folder is a corpus."""
        if (self.output / MANIFEST_NAME).is_file() and not self.scratch.exists():
            return  # a task that was killed at its very end, run again
        self._make_missing(self._shard_tasks)  # what was removed since
        records = {task.name: ShardRecord.read(task.record) for task in self._shard_tasks}
        tokenizer = load_tokenizer(self.output / TOKENIZER_FOLDER)
        runs = self._summary.without(self._duplicates)
        found = by_split(self._shard_tasks, records)
        write_manifest(
            self.output,
            settings=self.settings,
            reader=self.reader,
            tokenizer=tokenizer,
            tokenizer_name=self.tokenizer_name,
            request=self.request,
            runs=runs,
            records=found,
        )
        shutil.rmtree(self.scratch)

    def _make_missing(self, tasks: Sequence[ShardTask]) -> None:
        missing = [task for task in tasks if finished_record(task) is None]
        for _ in map_in_order(make_shard, missing, self.processes):
            pass

    @property
    def scratch(self) -> Path:
        return self.output / SCRATCH_FOLDER

    @property
    def failures(self) -> Path:
        return self.scratch / "failures"

    @property
    def _sizes(self) -> Path:
        return self.scratch / "sizes"

    @property
    def _runs(self) -> Path:
        return self.scratch / "groups"

    @property
    def _part_settings(self) -> PartSettings:
        settings = self.settings
        counts_words = settings.train_vocab is not None
        return PartSettings(self.reader, settings.seed, settings.held_out, counts_words, self.scratch / "parts")

    @cached_property
    def _groups(self) -> Groups:
        return Groups.load(self.scratch)

    @property
    def _summary_path(self) -> Path:
        return self.scratch / "groups.json"

    @cached_property
    def _summary(self) -> RunsSummary:
        return RunsSummary(**read_object(self._summary_path, CONTINUE_REMEDY))

    @cached_property
    def _duplicates(self) -> Duplicates:
        return duplicates_of(self.settings, self._runs, len(self._groups), self.scratch, self._summary.sentences)

    @cached_property
    def _shard_tasks(self) -> list[ShardTask]:
        return shard_tasks(self.output, self.settings, self._runs, len(self._groups), self._duplicates)
