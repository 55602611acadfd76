"""Precision against recall, and F1 by the threshold, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spe_dist.extraction.scoring.counts import Counts
from spe_dist.extraction.scoring.scores import Scores
from spe_dist.extraction.scoring.table import METRIC_NAMES
from spe_dist.extraction.thresholds.curves import Curves

DPI = 130


def draw_thresholds(curves: Curves, argmax: Scores, path: Path) -> None:
    """Draw the curves of entities and of relations with types; argmax is a cross, the chosen thresholds are circles.

    A dotted line is the highest recall that the model can have.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    by_recall, by_threshold = figure.subplots(1, 2)
    thresholds = [point.threshold for point in curves.entities]
    lines = {
        "entity": ([point.entity for point in curves.entities], curves.best_entities),
        "ent_rel": ([point.ent_rel for point in curves.relations], curves.best_relations),
    }
    for number, (metric, (counts, best)) in enumerate(lines.items()):
        color, chosen = f"C{number}", counts[thresholds.index(best)]
        points = [c for c in counts if c.tp]
        _plot(by_recall, [c.recall for c in points], [c.precision for c in points], color, METRIC_NAMES[metric])
        _plot(by_threshold, [x / 100 for x in thresholds], [c.f1 for c in counts], color, METRIC_NAMES[metric])
        _mark(by_recall, chosen, argmax.total(metric), color)
        by_threshold.plot(best, 100 * chosen.f1, "o", color=color)
        by_threshold.axhline(100 * argmax.total(metric).f1, color=color, linestyle="--", linewidth=0.8)
        if not argmax.ceiling.is_complete:
            by_recall.axvline(100 * argmax.ceiling.of(metric).recall, color=color, linestyle=":", linewidth=0.8)
    by_recall.set(xlabel="recall (%)", ylabel="precision (%)", title="Precision and recall")
    by_threshold.set(xlabel="least probability", ylabel="F1 (%)", title="F1 by the threshold; dashed: argmax")
    for axes in (by_recall, by_threshold):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small", loc="best")
    figure.savefig(path, dpi=DPI)


def _plot(axes: Any, across: list[float], up: list[float], color: str, label: str) -> None:
    axes.plot([100 * x for x in across], [100 * y for y in up], color=color, label=label)


def _mark(axes: Any, chosen: Counts, argmax: Counts, color: str) -> None:
    axes.plot(100 * chosen.recall, 100 * chosen.precision, "o", color=color)
    axes.plot(100 * argmax.recall, 100 * argmax.precision, "x", color=color)
