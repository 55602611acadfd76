"""The pieces of work behind the tables.

A piece is one command with a folder of its own:

    demo/NAME                        a corpus of made-up sentences
    shards/NAME                      text as shards
    pretraining/NAME                 one pre-training run
    exports/NAME-query, NAME-key     its encoder and its momentum encoder in plain PyTorch
    distant/NAME                     joint extraction on distant labels
    rows/ROW/CORPUS-SHARE/seed-N     one fine-tuning, which ends in scores
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spe_dist.experiments.file import Table

COMMANDS = {  # what each kind of piece runs: a module, and what its arguments begin with
    "demo": ("spe_dist.demo.corpus",),
    "shards": ("spe_dist", "shards", "make"),
    "pretrain": ("spe_dist.pretrain",),
    "export": ("spe_dist", "export"),
    "finetune": ("spe_dist.finetune",),
}
RESULT_FOLDER = "run"  # what a piece's command writes, inside the piece's folder


@dataclass(frozen=True)
class Cell:
    """One group of runs that a table averages."""

    corpus: str
    row: str
    share: float

    def piece_id(self, seed: int) -> str:
        return f"rows/{self.row}/{self.corpus}-{self.share:g}/seed-{seed}"


@dataclass(frozen=True)
class Piece:
    """One command. `settings` and `inputs` (files and folders of the user, by option) decide its result."""

    id: str
    kind: str
    title: str
    result_folder: Path
    arguments: tuple[str, ...]
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    needs: tuple[str, ...] = ()
    launcher: str = ""
    share: float = 100.0
    extra: tuple[str, ...] = ()  # options that do not decide its result
    removes: Path | None = None  # what is removed once it is finished

    @property
    def folder(self) -> Path:
        return self.result_folder.parent

    def command(self) -> list[str]:
        """The command to run; a launcher, where there is one, starts the module on all ranks."""
        launcher = self.launcher.split() or [sys.executable]
        as_module = "--module" if any(Path(part).name == "deepspeed" for part in launcher) else "-m"
        return [*launcher, as_module, *COMMANDS[self.kind], *self.arguments, *self.extra]


@dataclass
class Plan:
    """Pieces in an order in which each comes after what it needs, and the cells of the tables by piece.

    `chosen` are those that were asked for, not just needed by others.
    """

    pieces: dict[str, Piece] = field(default_factory=dict)
    chosen: set[str] = field(default_factory=set)
    cells: dict[Cell, dict[int, str]] = field(default_factory=dict)  # by seed: id of the piece


def cells_of(table: Table) -> list[Cell]:
    """The cells of a table in its order: share after share, row after row."""
    return [Cell(table.corpus, row, share) for share in table.shares for row in table.rows]
