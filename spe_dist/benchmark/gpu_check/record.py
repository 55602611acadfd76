"""What the stages of a check hand to it, and where that is kept. Imports no torch.

A stage prints its results as lines among all else that it prints; the check writes each into `results.jsonl` as it
comes, and everything else into `log.txt`.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RESULTS_FILE, LOG_FILE, SUMMARY_FILE, PROFILE_FILE = "results.jsonl", "log.txt", "summary.md", "profile.txt"
MARK = "result: "  # before a result in a stage's output
STAGE_LOG_BYTES = 1 << 20

# Names of rows that the check writes itself; those of a stage are its own.
RUN, BEGAN, ENDED, UNREADABLE = "check", "stage began", "stage ended", "unreadable result"


def give(name: str, **figures: Any) -> None:
    """Print a result of the stage that this process is; units stand in the names of the figures."""
    row = {"name": name, **{key: _printable(value) for key, value in figures.items()}}
    print(f"{MARK}{json.dumps(row, default=str)}", flush=True)


def _printable(value: Any) -> Any:
    """JSON has no infinity and nothing that is no number; four digits are more than any timing holds."""
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else str(value)
    return value


def parse(line: str) -> dict[str, Any] | None:
    """The result that a line of a stage's output holds; None where it holds none.

    A line that begins like a result and is not readable as one gives a row that says so.
    """
    if not line.startswith(MARK):
        return None
    text = line.removeprefix(MARK).strip()
    try:
        row = json.loads(text)
    except ValueError:
        row = None
    if isinstance(row, dict) and isinstance(row.get("name"), str):
        return row
    return {"name": UNREADABLE, "text": text[:200]}


@dataclass
class Record:
    """The files of a check in its folder, kept open and written line by line."""

    folder: Path
    began: float = field(default_factory=time.monotonic)
    _logged: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._results = (self.folder / RESULTS_FILE).open("a", encoding="utf-8", buffering=1)
        self._log = (self.folder / LOG_FILE).open("a", encoding="utf-8", buffering=1, errors="replace")

    def add(self, stage: str, row: dict[str, Any]) -> None:
        """Write a row now, and on the disk: the machine may be gone in a moment."""
        done = {"stage": stage, "at_s": round(time.monotonic() - self.began, 1), **row}
        self._results.write(f"{json.dumps(done)}\n")
        os.fsync(self._results.fileno())

    def log(self, stage: str, line: str) -> None:
        """Write a line of a stage's output; of one that prints without end, only the beginning."""
        before = self._logged[stage]
        self._logged[stage] += len(line)
        if before + len(line) <= STAGE_LOG_BYTES:
            self._log.write(f"[{stage}] {line}\n")
        elif before <= STAGE_LOG_BYTES:
            self._log.write(f"[{stage}] (more than {STAGE_LOG_BYTES:,} bytes; the rest is left out)\n")
            self._logged[stage] = STAGE_LOG_BYTES + 1

    def close(self) -> None:
        self._results.close()
        self._log.close()


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of `results.jsonl`; lines that cannot be read are left out."""
    rows = []
    for line in (folder / RESULTS_FILE).read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return [row for row in rows if isinstance(row, dict)]
