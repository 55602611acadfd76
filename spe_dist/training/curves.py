"""Curves of a run as a picture, from its metrics.jsonl: six panels, each with a note on how to read it.

The panels of each training stand beside its loop, in `curves.py` there.
"""

from __future__ import annotations

import functools
import itertools
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spe_dist.training.metrics import read_rows
from spe_dist.utils.reading.json_file import is_number
from spe_dist.utils.run_files import CURVES_FILE, METRICS_FILE
from spe_dist.utils.wording import drawn

Rows = Sequence[Mapping[str, Any]]
SMOOTHED_FROM = 50  # points
NOTE_CHARACTERS = 62  # of a line below a panel
LARGE_LEGEND = 4  # entries
LEGEND_ENTRY_SHARE = 0.07  # of a panel's height


@dataclass(frozen=True)
class Panel:
    """One panel. What it shows are names of figures in the rows, with their labels.

    `per_cent`: fractions are drawn as per cent, as the program prints them. `note`: what a reader may wonder about.
    """

    title: str
    note: str
    training: Mapping[str, str]
    held_out: Mapping[str, str] = field(default_factory=dict)
    yardsticks: Mapping[str, str] = field(default_factory=dict)  # of the evaluations: what to compare with, dashed
    chance: str = ""  # of the training rows, dashed
    per_cent: bool = False
    smoothed: bool = True
    shaded_until: int = 0  # step up to which the background is grey


def without_failing(draw: Callable[[Path], Path | None]) -> Callable[[Path], Path | None]:
    """The same, with a warning where there is no drawing: a run does not fail for its picture."""

    @functools.wraps(draw)
    def try_to_draw(folder: Path) -> Path | None:
        try:
            return draw(folder)
        except (OSError, ValueError, TypeError, KeyError, OverflowError) as error:
            print(f"warning: {folder / CURVES_FILE} is not drawn ({error})", flush=True)
            return None

    return try_to_draw


def draw_panels(folder: Path, title: str, panels: Sequence[Panel], rows: Rows, evaluations: Rows) -> Path:
    """Draw folder/curves.png, two rows of three panels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 8), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(drawn(title))
    for axes, panel in zip(figure.subplots(2, 3).flat, panels, strict=True):
        _draw(axes, panel, rows, evaluations)
    path = folder / CURVES_FILE
    figure.savefig(path, dpi=110)
    return path


def read_training(folder: Path) -> tuple[Rows, Rows]:
    """The rows of training steps and of evaluations."""
    return read_rows(folder / METRICS_FILE, "train"), read_rows(folder / METRICS_FILE, "evaluation")


def _draw(axes: Any, panel: Panel, rows: Rows, evaluations: Rows) -> None:
    axes.set_title(f"{panel.title} (%)" if panel.per_cent else panel.title)
    note = textwrap.fill(panel.note, NOTE_CHARACTERS)
    axes.set_xlabel(f"step\n{note}", fontsize="small")
    axes.grid(alpha=0.3)
    if panel.shaded_until:
        axes.axvspan(0, panel.shaded_until, color="0.92", zorder=0)
    scale = 100 if panel.per_cent else 1
    colors = (f"C{i}" for i in itertools.count())
    for name, label in panel.training.items():
        _line(axes, _points(rows, name, scale), label, next(colors), panel.smoothed)
    for name, label in panel.held_out.items():
        color, points = next(colors), _points(evaluations, name, scale)
        if points:
            axes.plot(*zip(*points, strict=True), marker=".", label=label, color=color)
    dashes = iter(("--", ":", "-."))
    for name, label in panel.yardsticks.items():
        points = _points(evaluations, name, scale)
        if points:  # the same in all evaluations, or nearly so: a line over the whole panel
            axes.axhline(points[-1][1], linestyle=next(dashes), color="0.35", label=label)
    if panel.chance:
        points = _points(rows, panel.chance, scale)
        if points:
            axes.plot(*zip(*points, strict=True), linestyle="--", color="0.35", label="chance")
    entries = len(axes.get_legend_handles_labels()[0])
    if entries >= LARGE_LEGEND:  # it would hide a line somewhere: give it a place above all of them
        low, high = axes.get_ylim()
        axes.set_ylim(low, low + (high - low) / (1 - LEGEND_ENTRY_SHARE * entries))
    if entries:
        axes.legend(fontsize="small", loc="upper right" if entries >= LARGE_LEGEND else "best")


def _line(axes: Any, points: Sequence[tuple[int, float]], label: str, color: str, smoothed: bool) -> None:
    if not points:
        return
    steps, values = zip(*points, strict=True)
    if not smoothed or len(values) < SMOOTHED_FROM:
        axes.plot(steps, values, label=label, color=color)
        return
    axes.plot(steps, values, alpha=0.25, linewidth=0.8, color=color)
    shown = len(values) - max(1, len(values) // 120)  # the last means are of few points
    axes.plot(steps[:shown], smooth(values)[:shown], label=f"{label}, smoothed", color=color)


def _points(rows: Rows, name: str, scale: float) -> list[tuple[int, float]]:
    return [(row["step"], scale * row[name]) for row in rows if is_number(row.get(name))]


def smooth(values: Sequence[float]) -> list[float]:
    """Means of the values around each, over about a thirtieth of the curve; narrower at its ends."""
    reach = max(2, len(values) // 60)
    sums = [0.0, *itertools.accumulate(values)]
    smoothed = []
    for i in range(len(values)):
        around = min(reach, i, len(values) - 1 - i)
        smoothed.append((sums[i + around + 1] - sums[i - around]) / (2 * around + 1))
    return smoothed
