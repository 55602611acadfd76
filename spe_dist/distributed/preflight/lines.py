"""What a check says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Line:
    """One finding. A run would not work with a problem; with a warning it would, worse than it could."""

    level: Level
    topic: str
    text: str


def name_ranks(ranks: Iterable[int]) -> str:
    """Ranks in few words, such as "ranks 0-3, 7"."""
    runs: list[list[int]] = []
    for rank in sorted(ranks):
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    words = [f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs]
    plural = "s" if len(runs) > 1 or (runs and len(runs[0]) > 1) else ""
    return f"rank{plural} {', '.join(words)}"
