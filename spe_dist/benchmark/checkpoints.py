"""Time and bytes of a checkpoint, beside one of DeepSpeed's own files with the whole masters and queues from rank 0.

Both are written, synced and given checksums by `Checkpoints`, and both are compared with these before they are read.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from spe_dist.distributed.checkpoint import Checkpoints
from spe_dist.distributed.fragments.tensors import Captured, CheckpointTensors

if TYPE_CHECKING:
    from spe_dist.benchmark.pretraining.contenders import Ours


@dataclass(frozen=True)
class CheckpointTimes:
    """Seconds of one checkpoint from the first rank to the last, and its bytes on the disk."""

    kind: str
    save_s: float
    resume_s: float
    bytes: int


def measure_checkpoints(contender: Ours, folder: str, rounds: int, fragments_only: bool) -> list[CheckpointTimes]:
    """Both kinds in turn, `rounds` times; a collective. `folder`: on the disk that is measured."""
    context = contender.context
    root = Path(context.run_on_main(lambda: tempfile.mkdtemp(prefix="spe_checkpoints_", dir=folder)))
    kinds: dict[str, Any] = {"fragments": _Fragments(contender)}
    if not fragments_only:
        kinds["DeepSpeed's"] = _DeepSpeeds(contender)
    try:
        return [_once(kind, root / kind, work, contender) for _ in range(rounds) for kind, work in kinds.items()]
    finally:
        context.barrier()
        context.run_on_main(lambda: shutil.rmtree(root))


def _once(kind: str, folder: Path, work: Any, contender: Ours) -> CheckpointTimes:
    checkpoints = Checkpoints(folder, 1, contender.context)
    written: list[Path] = []
    save_s = _timed(lambda: written.append(checkpoints.save(1, {"step": 1}, work.write)), contender)
    problems: list[str | None] = []

    def resume() -> None:
        problems.append(checkpoints.problem_of(written[0]))
        work.read(written[0])

    resume_s = _timed(resume, contender)
    assert problems == [None], problems
    return CheckpointTimes(kind, save_s, resume_s, sum(f.stat().st_size for f in written[0].rglob("*") if f.is_file()))


def _timed(work: Callable[[], Any], contender: Ours) -> float:
    contender.context.barrier()
    began = time.monotonic()
    work()
    contender.context.barrier()
    return time.monotonic() - began


class _Fragments:
    """What `spe pretrain` writes and reads."""

    def __init__(self, contender: Ours) -> None:
        self.states = [state for state in (contender.engine, contender.moco) if state is not None]
        self.group = contender.context.control

    def write(self, folder: Path) -> None:
        Captured(self.states).write(folder, self.group)

    def read(self, folder: Path) -> None:
        source = CheckpointTensors(folder, self.group)
        for state in self.states:
            state.load(source)


class _DeepSpeeds:
    """DeepSpeed's files of every rank; whole masters, and whole averages and queues, from rank 0."""

    def __init__(self, contender: Ours) -> None:
        self.contender = contender

    def write(self, folder: Path) -> None:
        engine, moco, context = self.contender.engine, self.contender.moco, self.contender.context
        engine._engine.save_checkpoint(str(folder), tag="engine", save_latest=False)
        masters = engine.master_weights()
        parts = context.all_gather_object([(f.name, f.tensor.cpu().clone()) for f in moco.fragments()] if moco else [])
        if context.is_main:
            save_file(masters, folder / "weights.safetensors")
            torch.save(parts, folder / "moco.pt")

    def read(self, folder: Path) -> None:
        self.contender.engine._engine.load_checkpoint(str(folder), tag="engine")
        torch.load(folder / "moco.pt", map_location="cpu", weights_only=True)
