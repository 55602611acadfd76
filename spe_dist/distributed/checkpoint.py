"""Checkpoints that survive a kill at any moment.

A checkpoint is written into a hidden temporary folder on a file system that all ranks share, synced to disk, given
SHA-256 checksums in state.json, and only then renamed; the pointer `latest` moves last. So a folder with its final name
is whole, and if it was damaged later its checksums tell: state.json has one of its own, and lists every file beside it.
Resume takes the newest valid one, not what `latest` says.

`spe_dist.utils.run_files` names what lies in one.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from spe_dist.distributed.context import RankContext
from spe_dist.distributed.fence import Fence
from spe_dist.distributed.fragments.index import rank_file
from spe_dist.errors import CheckpointError, SpeError
from spe_dist.utils.files import appears, file_sha256, flush, open_to_others, write_atomically
from spe_dist.utils.reading.files import read_up_to
from spe_dist.utils.reading.json_file import read_object
from spe_dist.utils.run_files import CHECKPOINTS_FOLDER, POINTER_FILE, STATE_FILE, TENSORS_FOLDER

FULL_BYTES = 64 << 20  # less free space than this counts as a full disk: torch and safetensors hide the error code
STATE_CHECKSUM = "sha256"  # in state.json, of all else in it
_OLD_NAME = re.compile(r"engine/.*\.pt")  # DeepSpeed's own files, in the checkpoints of earlier versions
_NAME = re.compile(r"step_(\d{8,})")


class Checkpoints:
    """The checkpoints of one run. Every method is a collective: all ranks call it together."""

    def __init__(self, folder: Path, keep: int, context: RankContext, fence: Fence | None = None):
        self.folder = folder
        self.keep = keep
        self.context = context
        self.fence = fence  # ends the writing of a start that another has taken over from

    def check_owner(self) -> None:
        """Raises CheckpointError on all ranks where another start has taken over the run's output folder."""
        self.context.run_on_main(self._check_fence)

    def save(self, step: int, state: dict[str, Any], write: Callable[[Path], None]) -> Path:
        """Write one checkpoint. `write(folder)` is called on all ranks with the temporary folder.

        Returns the final folder. Raises CheckpointError where the disk is full or not shared; what stood there before
        is untouched then.
        """
        token = self.context.broadcast_object(self.fence.owner["token"] if self.fence else "")
        temporary, final = self.folder / f".partial_step_{step:08d}{token}", self.folder / f"step_{step:08d}"
        self.context.run_on_main(lambda: self._prepare(temporary))
        seen = self.context.all_gather_object(appears(temporary))
        if not all(seen):
            raise CheckpointError(
                f"{temporary} was made by rank 0 but ranks {[r for r, s in enumerate(seen) if not s]} do not see it; "
                "put --output on a file system that all nodes share"
            )
        try:
            write(temporary)
            self.context.barrier()
            checksums = self._checksums(temporary)
            self.context.run_on_main(lambda: self._publish(temporary, final, {**state, "checksums": checksums}))
        except Exception as error:
            self._explain(error)
            raise
        return final

    def give_up_after(self, step: int) -> None:
        """Take the names of checkpoints of later steps, which a run that goes on from `step` trains again.

        Else a start that resumes before the next save would take one of them. That save removes their folders.
        """
        self.context.run_on_main(lambda: self._give_up_after(step))

    def _give_up_after(self, step: int) -> None:
        self._check_fence()
        kept = list_checkpoints(self.folder)
        later = [path for path in kept if step_of(path) > step]
        for path in later:
            hidden = self.folder / f".partial_{path.name}.given_up"
            if hidden.exists():
                _remove(hidden)
            path.rename(hidden)
        if later:
            flush(self.folder)
        if later and len(kept) > len(later):
            write_atomically(self.folder / POINTER_FILE, kept[len(later)].name)

    def newest_valid(self) -> tuple[Path | None, list[str]]:
        """The newest checkpoint whose checksums hold (None without one), and a line for each that was passed over."""
        while True:
            passed_over: list[str] = []
            listed = self.context.run_on_main(lambda: _entries(self.folder))
            for path in listed:
                problem = self.problem_of(path)
                if problem is None:
                    return path, passed_over
                passed_over.append(f"{path.name}: {problem}")
            if self.context.run_on_main(lambda: _entries(self.folder)) == listed:
                return None, passed_over
            # An active run has saved meanwhile, and removed what was looked at.

    def problem_of(self, path: Path) -> str | None:
        """Why a checkpoint cannot be used; None when its files and checksums are as written."""
        try:
            expected = self.context.run_on_main(lambda: read_state(path)["checksums"])
        except CheckpointError as error:
            return str(error)
        present = self.context.run_on_main(lambda: {*_files(path)})
        unlisted = sorted(present - {STATE_FILE, *expected})
        if unlisted:
            return f"{unlisted[0]} is not among the files that {STATE_FILE} lists"
        mine = [name for i, name in enumerate(sorted(expected)) if i % self.context.ranks == self.context.rank]
        problems = self.context.all_gather_object(_first_damage(path, mine, expected, present))
        return next((problem for problem in problems if problem), None)

    def _prepare(self, temporary: Path) -> None:
        self._check_fence()
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob(".partial_step_*"):
            _remove(leftover)
        existing = list_checkpoints(self.folder)
        if existing:
            needed = _size(existing[0])
            free = shutil.disk_usage(self.folder).free
            if free < needed * 1.1:
                raise CheckpointError(
                    f"no space for a checkpoint in {self.folder}: {free / 2**30:.1f} GiB free, "
                    f"{needed * 1.1 / 2**30:.1f} GiB needed; free some, or lower keep_checkpoints={self.keep}, "
                    f"then continue with --resume auto from {existing[0].name}"
                )
        temporary.mkdir()

    def _explain(self, error: Exception) -> None:
        """Raise a CheckpointError in place of what a file system said while it was written to."""
        free = shutil.disk_usage(self.folder).free
        if isinstance(error, OSError) or (free < FULL_BYTES and not isinstance(error, SpeError)):
            kept = list_checkpoints(self.folder)
            raise CheckpointError(
                f"writing a checkpoint in {self.folder} failed: {error} ({free / 2**30:.1f} GiB free); correct that, "
                f"then continue with --resume auto{f' from {kept[0].name}' if kept else ''}"
            ) from error

    def _check_fence(self) -> None:
        if self.fence is not None:
            self.fence.check()

    def _checksums(self, folder: Path) -> dict[str, str]:
        """SHA-256 of every file by relative name; each rank syncs and hashes its share."""
        own = f"{TENSORS_FOLDER}/{rank_file(self.context.rank)}"  # which rank 0 may not see yet
        of_ranks = self.context.all_gather_object(own if (folder / own).is_file() else None)
        names = self.context.run_on_main(lambda: sorted({*_files(folder), *filter(None, of_ranks)}))
        mine = {}
        for name in names[self.context.rank :: self.context.ranks]:
            appears(folder / name)
            open_to_others(folder / name)
            flush(folder / name)
            mine[name] = file_sha256(folder / name)
        return {name: value for part in self.context.all_gather_object(mine) for name, value in part.items()}

    def _publish(self, temporary: Path, final: Path, state: dict[str, Any]) -> None:
        write_state(temporary, state)
        for folder in sorted({file.parent for file in temporary.rglob("*")}):
            flush(folder)
        self._check_fence()
        aside = self.folder / f".partial_{final.name}.old"  # the next one to be prepared removes it after a kill
        if final.exists():
            final.rename(aside)
        try:
            temporary.rename(final)
        except OSError:
            if aside.exists():
                aside.rename(final)
            raise
        flush(self.folder)
        write_atomically(self.folder / POINTER_FILE, final.name)
        for old in [*self._superseded(final), *filter(Path.exists, [aside])]:
            _remove(old)

    def _superseded(self, newest: Path) -> list[Path]:
        """What goes once `newest` is written: older ones beyond `keep`, and later steps, which are trained again.

        Later steps are there after a resume from an older checkpoint, damaged or of a part that was given up.
        """
        found = list_checkpoints(self.folder)
        place = found.index(newest)
        return found[:place] + found[place + self.keep :]


def list_checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints of a run, newest first."""
    return [path for path in _entries(folder) if path.is_dir()]


def step_of(checkpoint: Path) -> int:
    """The step whose checkpoint a folder is, by its name."""
    return int(checkpoint.name.removeprefix("step_"))


def _entries(folder: Path) -> list[Path]:
    """What has the name of a checkpoint, newest first."""
    if not folder.is_dir():
        return []
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write state.json with a checksum of all that stands in it."""
    whole = {**state, STATE_CHECKSUM: _state_sha256(state)}
    write_atomically(path / STATE_FILE, json.dumps(whole, indent=1, sort_keys=True))


def read_state(path: Path) -> dict[str, Any]:
    """state.json of a checkpoint. Raises CheckpointError where it is missing, damaged or of an earlier version."""
    try:
        state = read_object(path / STATE_FILE, "take another checkpoint", CheckpointError)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is not a finished checkpoint: it has no {STATE_FILE}") from None
    if not isinstance(state.get("checksums"), dict):
        raise CheckpointError(f"{path / STATE_FILE} holds no checksums: not written by this program")
    if STATE_CHECKSUM not in state and any(_OLD_NAME.fullmatch(name) for name in state["checksums"]):
        raise CheckpointError(
            f"{path} was written by an earlier version, in DeepSpeed's own files, which are not read any more; resume "
            "or export it with the version that wrote it, or start a new run in another --output"
        )
    sha256 = state.pop(STATE_CHECKSUM, None)
    if sha256 != _state_sha256(state):
        raise CheckpointError(f"{path / STATE_FILE} does not match its own checksum: it was changed or damaged")
    return state


def _state_sha256(state: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode("utf-8")).hexdigest()


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that a user means: a step folder, a checkpoints folder or a run's output folder.

    Raises CheckpointError naming what was looked for.
    """
    if (path / STATE_FILE).is_file():
        return path
    for folder in (path, path / CHECKPOINTS_FOLDER):
        found = list_checkpoints(folder)
        pointed = _pointed(folder)
        if pointed in found:
            return pointed
        if found:
            return found[0]
    raise CheckpointError(
        f"{path} is not a checkpoint: neither {STATE_FILE} nor step_* folders in it; "
        "give OUTPUT/checkpoints/step_N or OUTPUT"
    )


def _pointed(folder: Path) -> Path | None:
    """What `latest` names; None where it is not there or holds no name."""
    try:
        return folder / read_up_to(folder / POINTER_FILE, 255).decode("utf-8").strip()
    except (OSError, ValueError):
        return None


def _remove(path: Path) -> None:
    """Remove a folder, or a link to one; what cannot be removed is named, and stays."""
    try:
        if path.is_symlink() or not path.is_dir():
            path.unlink()
        else:
            shutil.rmtree(path)
    except OSError as error:
        print(f"warning: {path} cannot be removed ({error.strerror})", flush=True)


def _size(folder: Path) -> int:
    """Bytes of its files, as far as they may be looked at."""
    with suppress(OSError):
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return 0


def _first_damage(path: Path, names: Iterable[str], expected: dict[str, str], present: set[str]) -> str | None:
    """In words; `present`: files that rank 0 sees."""
    for name in (STATE_FILE, *names):
        try:
            if not (path / name).is_file() and not (name in present and appears(path / name)):
                return f"{name} is missing"
            if name == STATE_FILE:
                continue
            if file_sha256(path / name) != expected[name]:
                return f"{name} does not match its checksum"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return None


def _files(folder: Path) -> Iterator[str]:
    """Relative names of all files, but for those that a network file system keeps of deleted ones (`.nfs...`)."""
    for file in folder.rglob("*"):
        with suppress(OSError):  # in a folder that may not be looked into
            if file.is_file() and not file.name.startswith(".nfs"):
                yield str(file.relative_to(folder))
