"""Numbers that arrive in pieces, rank by rank, put in order by few copies.

Where each rank holds an equal part of every parameter, as at stage 3, a parameter's pieces lie at equal distances in
what the ranks send: one strided copy takes all of them, however many ranks there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class Piece:
    """`length` numbers from `source` on, which belong to `target` and following."""

    source: int
    target: int
    length: int


@dataclass(frozen=True)
class Run:
    """`count` pieces of equal length; each next one lies a step further on, on both sides."""

    first: Piece
    count: int = 1
    source_step: int = 0
    target_step: int = 0


def runs_of(pieces: Iterable[Piece]) -> list[Run]:
    """The pieces in the order of their targets, with what lies together or at equal distances in one run."""
    runs: list[Run] = []
    for piece in _joined(sorted(pieces, key=lambda piece: piece.target)):
        longer = _continued(runs[-1], piece) if runs else None
        if longer is None:
            runs.append(Run(piece))
        else:
            runs[-1] = longer
    return runs


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    """Those that follow each other on both sides become one."""
    found: list[Piece] = []
    for piece in pieces:
        last = found[-1] if found else None
        if last and (last.source + last.length, last.target + last.length) == (piece.source, piece.target):
            found[-1] = replace(last, length=last.length + piece.length)
        elif piece.length:
            found.append(piece)
    return found


def _continued(run: Run, piece: Piece) -> Run | None:
    """The run with one piece more, if it continues it."""
    first = run.first
    if piece.length != first.length:
        return None
    if run.count == 1:
        steps = piece.source - first.source, piece.target - first.target
        return Run(first, 2, *steps) if steps[0] > 0 else None
    expected = first.source + run.count * run.source_step, first.target + run.count * run.target_step
    return replace(run, count=run.count + 1) if (piece.source, piece.target) == expected else None


def source_views(values_1d: Tensor, runs: Sequence[Run]) -> list[Tensor]:
    """For each run its numbers in what arrived: [length], or [count, length]."""
    return [_view(values_1d, run, run.first.source, run.source_step) for run in runs]


def target_views(values_1d: Tensor, runs: Sequence[Run]) -> list[Tensor]:
    """For each run the place of its numbers, in shapes as `source_views` has them."""
    return [_view(values_1d, run, run.first.target, run.target_step) for run in runs]


def _view(values_1d: Tensor, run: Run, start: int, step: int) -> Tensor:
    if run.count == 1:
        return values_1d.narrow(0, start, run.first.length)
    return values_1d.as_strided((run.count, run.first.length), (step, 1), values_1d.storage_offset() + start)
