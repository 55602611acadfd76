"""Rows of figures, one a step, written in groups: metrics.jsonl and TensorBoard.

Losses of a step are sums on each rank's device, and its gradient norm may lie there too; reading them would stop the
GPU every step. They wait in a list and are added over the ranks in one all-reduce when the group is written.
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spe_dist.distributed.context import RankContext
from spe_dist.errors import DataError
from spe_dist.training.health.stragglers import figures
from spe_dist.utils.files import write_atomically
from spe_dist.utils.reading.json_file import is_whole, parse_json
from spe_dist.utils.run_files import METRICS_FILE, TENSORBOARD_FOLDER

MAX_ROW_BYTES = 1 << 20
Finish = Callable[[dict[str, Any], Mapping[str, Sequence[float]], int], dict[str, Any]]


class Board:
    """TensorBoard's files of a run. They repeat metrics.jsonl, so where they cannot be written training goes on."""

    def __init__(self, folder: Path, resume_step: int) -> None:
        self.folder = folder
        self._writer: Any = None
        self._hook = threading.excepthook
        threading.excepthook = self._in_thread
        with self._or_give_up():
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder), purge_step=resume_step + 1)

    def show(self, row: Mapping[str, Any]) -> None:
        """Add the numbers of a row."""
        if self._writer is None:
            return
        with self._or_give_up():
            for name, value in row.items():
                if name not in ("step", "kind") and isinstance(value, int | float):
                    self._writer.add_scalar(name if "/" in name else f"train/{name}", float(value), row["step"])

    def close(self) -> None:
        threading.excepthook = self._hook
        if self._writer is not None:
            with self._or_give_up():
                self._writer.close()

    @contextlib.contextmanager
    def _or_give_up(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._writer = None
            print(
                f"warning: {self.folder} cannot be written ({error.strerror or error}): no more figures for "
                "TensorBoard in this run; metrics.jsonl has all of them",
                flush=True,
            )

    def _in_thread(self, found: threading.ExceptHookArgs) -> None:
        """TensorBoard's own thread raises once more where it is called next: no traceback for that."""
        if not (isinstance(found.exc_value, OSError) and type(found.thread).__module__.startswith("tensorboard.")):
            self._hook(found)


IsRepeated = Callable[[dict[str, Any]], bool]  # whether a run that goes on from a checkpoint makes a row again


def not_repeated(_: dict[str, Any]) -> bool:
    """For runs that make no row again but those of later steps."""
    return False


class MetricLog:
    """Collects one row a step on every rank; rank 0 writes them. `flush` is a collective."""

    def __init__(
        self,
        folder: Path,
        context: RankContext,
        finish: Finish,
        resume_step: int = 0,
        repeated: IsRepeated = not_repeated,
    ) -> None:
        """`resume_step`: rows of later steps are of a part that is trained again, and are removed. So are rows of
        which `repeated` says that they will be made again.

        `finish` makes a row of means from a row with counts, sums over all ranks and the number of ranks; pieces a
        second and memory are added to it.
        """
        self.context = context
        self._finish = finish
        self.path = folder / METRICS_FILE
        self._pending: list[tuple[dict[str, Any], dict[str, Tensor]]] = []
        self._own_s: list[Callable[[], float]] = []
        self.own_s_of_ranks: list[tuple[Sequence[float], float]] = []  # and duration, of the rows of the last flush
        self._board: Board | None = None
        self.go_back(resume_step, repeated)

    def go_back(self, resume_step: int, repeated: IsRepeated) -> None:
        """Begin again after a step, with the arguments of the start; a collective. Raises OSError on all ranks."""
        self._pending.clear()
        self._own_s.clear()
        self.close()

        def open_files() -> None:
            _keep_rows(self.path, lambda row: row["step"] <= resume_step and not repeated(row))
            self._board = Board(self.path.parent / TENSORBOARD_FOLDER, resume_step)

        self.context.run_on_main(open_files)

    def add(
        self,
        row: Mapping[str, Any],
        sums: Mapping[str, Tensor],
        local: Mapping[str, float],
        own_s: Callable[[], float] = float,
    ) -> None:
        """One step: figures that all ranks know, sums on the device, and this rank's own numbers to be added.

        A figure may be a tensor of one element that nothing writes to again: it is read when the row is written, and so
        is `own_s`, the seconds that this rank worked without waiting for others.
        """
        self._own_s.append(own_s)
        extra = {name: torch.tensor([value], dtype=torch.float64) for name, value in local.items()}
        self._pending.append((dict(row), {**sums, **extra}))

    def flush(self, may_write: Callable[[], None] = lambda: None) -> list[dict[str, Any]]:
        """Write the waiting rows; returns them, finished, on all ranks alike.

        `may_write` is called before they are written and after all that waits for other ranks; it may raise.
        """
        if not self._pending:
            return []
        device = self.context.device
        self._add_own_time()
        sizes = {name: value.numel() for name, value in self._pending[0][1].items()}
        matrix = torch.stack([torch.cat([value.to(device) for value in sums.values()]) for _, sums in self._pending])
        totals = self.context.all_reduce_sum(matrix).cpu().split(list(sizes.values()), dim=1)
        columns = {name: total.tolist() for name, total in zip(sizes, totals, strict=True)}
        rows, self.own_s_of_ranks = [], []
        _read_tensors([row for row, _ in self._pending], device)
        may_write()
        for i, (row, _) in enumerate(self._pending):
            sums = {name: column[i] for name, column in columns.items()}
            finished = self._finish(row, sums, self.context.ranks)
            finished["pieces_per_s"] = sums["pieces"][0] / row["step_s"]
            if "replaced_sentences" in sums:
                finished["replaced_sentences"] = round(sums["replaced_sentences"][0])
            finished["peak_memory_gib"] = sums["peak_memory_gib"][0] / self.context.ranks
            if "own_s" in sums:
                finished |= figures(sums["own_s"])
                self.own_s_of_ranks.append((sums["own_s"], row["step_s"]))
            rows.append(finished)
        self.write(*rows)
        self._pending.clear()
        return rows

    def _add_own_time(self) -> None:
        """To the sums of each row, where there are several ranks: a number for each rank, its own set."""
        ranks = self.context.ranks
        for (_, sums), own_s in zip(self._pending, self._own_s, strict=True):
            if ranks > 1:
                sums["own_s"] = torch.zeros(ranks, dtype=torch.float64)
                sums["own_s"][self.context.rank] = own_s()
        self._own_s.clear()

    def write(self, *rows: Mapping[str, Any]) -> None:
        """Write finished rows on rank 0. A collective; where that fails, all ranks raise the OSError."""
        self.context.run_on_main(lambda: self._write(rows))

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        lines = [json.dumps({name: _json_value(value) for name, value in row.items()}) + "\n" for row in rows]
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(lines)
        for row in rows:
            if self._board is not None:
                self._board.show(row)

    def last_step(self, kind: str) -> int:
        """The step of the last row of a kind that is written; 0 without one. A collective."""
        return self.context.run_on_main(lambda: max((row["step"] for row in read_rows(self.path, kind)), default=0))

    def recent_losses(self, count: int) -> list[float]:
        """Those of the last applied steps that are written, at most `count`, in order; a collective."""

        def read() -> list[float]:
            rows = read_rows(self.path, "train")
            return [row["loss"] for row in rows if row.get("applied") and row.get("loss") is not None][-count:]

        return self.context.run_on_main(read)

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


def add_losses(
    row: dict[str, Any],
    sums: Mapping[str, Sequence[float]],
    counts: Mapping[str, int],
    weights: Mapping[str, float],
) -> None:
    """Add to a row the mean loss of each term that was computed, and their weighted sum."""
    for name, count in counts.items():
        if f"{name}/loss" in sums:
            row[f"{name}_loss"] = sums[f"{name}/loss"][0] / max(count, 1)
    row["loss"] = sum(weight * row.get(f"{name}_loss", 0.0) for name, weight in weights.items())


def _read_tensors(rows: Sequence[dict[str, Any]], device: torch.device) -> None:
    """Put numbers in the place of the tensors in `rows`, all read from the device at once."""
    places = [(row, name) for row in rows for name, value in row.items() if isinstance(value, Tensor)]
    if not places:
        return
    values = torch.stack([row[name].detach().to(device, torch.float64).reshape(()) for row, name in places])
    for (row, name), value in zip(places, values.tolist(), strict=True):
        row[name] = value


def read_rows(path: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """Rows of a metrics.jsonl; of one kind ("train" or "evaluation") or all.

    Lines that are no row of a step, such as a last one cut short, are left out.
    """
    if not path.is_file():
        return []
    rows = []
    with open(path, "rb") as file:
        while line := file.readline(MAX_ROW_BYTES):
            try:
                row = parse_json(line, "a row", "")
            except DataError:
                continue
            if isinstance(row, dict) and is_whole(row.get("step")) and kind in (None, row.get("kind")):
                rows.append(row)
    return rows


def _keep_rows(path: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    found = read_rows(path)
    rows = list(filter(keep, found))
    if path.is_file():
        with path.open("rb") as file:
            others = sum(1 for _ in iter(lambda: file.readline(MAX_ROW_BYTES), b"")) - len(found)
        if others > 1:  # one may be cut short where a run was killed
            print(f"warning: {others:,} lines of {path} are not rows and are removed", flush=True)
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))


def ratio(total: float, count: float) -> float:
    """total / count; not a number where there is nothing to count."""
    return total / count if count else float("nan")


def _json_value(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
