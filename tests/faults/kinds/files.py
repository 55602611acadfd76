"""Full disks and damaged checkpoints."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from spe_dist.cli.exits import DONE, FAILED, USER_ERROR
from spe_dist.distributed.checkpoint import list_checkpoints
from tests.faults.attempts import FaultError
from tests.faults.case import ENDED_BY_KILL, Case
from tests.faults.injection import Trap
from tests.faults.kinds.drawing import any_setup, draw_trap, kind


@kind("the disk is full")
def full_disk(case: Case) -> None:
    """A small file system of its own is filled to the last byte; the run ends with one line; with space it goes on."""
    case.setup = any_setup(case.rng)
    case.mount_small_disk()
    attempt = case.start(draw_trap(case, case.rng.choice(["saving", "rows", "files", "step"]), "fill disk"))
    case.expect_end(attempt, {USER_ERROR, FAILED, DONE})
    if case.fired(attempt) and "Traceback" in attempt.text():
        raise FaultError("a full disk ends in a traceback")
    (case.output.parent / "ballast").unlink(missing_ok=True)
    case.finish()


def damage_checkpoint(case: Case, how: str, change: Callable[[Path, random.Random], None]) -> None:
    """Kill a run late, damage a file of its newest checkpoint, go on from the one before."""
    case.setup = any_setup(case.rng)
    at = "spe_dist.distributed.engine:TrainingEngine.backward"
    times = case.runs.reference(case.setup).counts[0][at]
    attempt = case.start(Trap(1, at, case.rng.randint(times * 7 // 8, times)))
    case.expect_end(attempt, ENDED_BY_KILL)
    newest = list_checkpoints(case.output / "checkpoints")[0]
    files = sorted(file for file in newest.rglob("*") if file.is_file())
    file = case.rng.choice([*files, case.output / "checkpoints" / "latest"])
    change(file, case.rng)
    case.happened(f"{how} {file.relative_to(case.output / 'checkpoints')}")
    case.finish()


def truncate(file: Path, rng: random.Random) -> None:
    replace_file(file, file.read_bytes()[: rng.randrange(file.stat().st_size)])


def flip(file: Path, rng: random.Random) -> None:
    data = bytearray(file.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    replace_file(file, bytes(data))


def replace_file(file: Path, data: bytes) -> None:
    """Other contents under the name: a hard link elsewhere keeps its own."""
    new = file.with_name(f"{file.name}.damaged")
    new.write_bytes(data)
    new.rename(file)


kind("a file of the newest checkpoint is cut short")(lambda case: damage_checkpoint(case, "cut", truncate))
kind("a bit of the newest checkpoint is flipped")(lambda case: damage_checkpoint(case, "flipped", flip))
kind("a file of the newest checkpoint is removed")(
    lambda case: damage_checkpoint(case, "removed", lambda file, rng: file.unlink())
)
