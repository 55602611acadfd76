"""Tables and curves as PNG: a table set as in the paper, and F1 against the share of the training data."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spe_dist.experiments.file import Experiment, Table
from spe_dist.experiments.pieces import Cell
from spe_dist.experiments.table import CellScores, PrintedTable
from spe_dist.extraction.scoring.matching import METRICS
from spe_dist.extraction.scoring.table import METRIC_NAMES
from spe_dist.utils.wording import drawn

ROW_INCH, CHARACTER_INCH, GAP_INCH, MARGIN_INCH = 0.26, 0.088, 0.22, 0.2
DPI = 150
SPREAD = 1.02


def draw_table(layout: PrintedTable, path: Path) -> None:
    """Draw a table between rules, the best figures bold, a thin rule between groups."""
    rows = [layout.header(), *(layout.texts(line) for line in layout.lines)]
    widths = [max(len(row[i]) for row in rows) * CHARACTER_INCH + GAP_INCH for i in range(len(rows[0]))]
    width = max(sum(widths), len(layout.title) * CHARACTER_INCH * 1.15, 5.0)
    wrapped = textwrap.wrap(layout.caption, int(width / CHARACTER_INCH * 1.15))
    height = (len(rows) + len(wrapped) + 2) * ROW_INCH
    figure, canvas = _figure(width + 2 * MARGIN_INCH, height + 2 * MARGIN_INCH)
    panel = figure.add_axes((0, 0, 1, 1))
    panel.set_xlim(-MARGIN_INCH, width + MARGIN_INCH)
    panel.set_ylim(height + MARGIN_INCH, -MARGIN_INCH)
    panel.axis("off")
    panel.text(0, ROW_INCH / 2, drawn(layout.title), va="center", fontsize=10.5, fontweight="bold")
    top = 1.3 * ROW_INCH
    first_figure = 1 + layout.grouped
    lines = [None, *layout.lines]
    for number, (row, line) in enumerate(zip(rows, lines, strict=True)):
        middle = top + (number + 0.5) * ROW_INCH
        if line is not None and line.first_of_group and number > 1:
            panel.hlines(middle - ROW_INCH / 2, 0, sum(widths), color="black", linewidth=0.5)
        for i, text in enumerate(row):
            left, right = sum(widths[:i]) + GAP_INCH / 2, sum(widths[: i + 1]) - GAP_INCH / 2
            is_figure = first_figure <= i < first_figure + len(layout.heads)
            is_best = line is not None and is_figure and i - first_figure in line.best
            panel.text(
                right if is_figure else left,
                middle,
                drawn(text),
                ha="right" if is_figure else "left",
                va="center",
                fontsize=9.5,
                fontweight="bold" if is_best or line is None else "normal",
            )
    for y, thickness in ((0, 1.2), (1, 0.7), (len(rows), 1.2)):
        panel.hlines(top + y * ROW_INCH, 0, sum(widths), color="black", linewidth=thickness)
    for number, text in enumerate(wrapped):
        panel.text(0, top + (len(rows) + 0.7 + number) * ROW_INCH, drawn(text), va="center", fontsize=8.5, color="0.3")
    canvas.print_png(str(path))


def draw_curves(experiment: Experiment, key: str, results: Mapping[Cell, CellScores], split: str, path: Path) -> bool:
    """F1 by training share, a panel for each score; bars are standard deviations. False where no row has two points."""
    table = experiment.tables[key]
    curves = {row: _points(table, row, results) for row in table.rows}
    if all(len(points) < 2 for points in curves.values()):
        return False
    figure, canvas = _figure(12.5, 4.1)
    panels = figure.subplots(1, len(METRICS))
    for panel, metric in zip(panels, METRICS, strict=True):
        for number, (row, points) in enumerate(curves.items()):
            if not points:
                continue
            shares, scores = zip(*points, strict=True)
            aside = SPREAD ** (number - (len(curves) - 1) / 2)  # so that bars do not hide each other
            panel.errorbar(
                [share * aside for share in shares],
                [_percent(s.mean((metric, "f1"))) for s in scores],
                yerr=[_percent(s.deviation((metric, "f1"))) for s in scores],
                label=drawn(experiment.label(row)),
                color=f"C{number}",
                marker="os^Dv<>p*h"[number % 10],
                markersize=5,
                linewidth=1.4,
                capsize=3,
            )
        ticks = sorted(table.shares)
        panel.set_xscale("log")
        panel.set_xticks(ticks, [f"{share:g}%" for share in ticks])
        panel.minorticks_off()
        panel.set_title(METRIC_NAMES[metric])
        panel.set_xlabel("share of the training data")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("F1 (%)")
    panels[-1].legend(fontsize="small", loc="lower right")
    corpus = experiment.corpora[table.corpus].name or table.corpus
    seeds = f"; bars: standard deviation over {len(experiment.seeds)} seeds" if len(experiment.seeds) > 1 else ""
    figure.suptitle(drawn(f"{corpus} {split} data{seeds}"))
    figure.tight_layout()
    canvas.print_png(str(path))
    return True


def _points(table: Table, row: str, results: Mapping[Cell, CellScores]) -> list[tuple[float, CellScores]]:
    cells = [Cell(table.corpus, row, share) for share in sorted(table.shares)]
    return [(cell.share, results[cell]) for cell in cells if results[cell].by_seed]


def _percent(fraction: float | None) -> float:
    return 100 * (fraction or 0.0)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI)
    return figure, FigureCanvasAgg(figure)
