"""Loss curves of a run as a picture, from its metrics.jsonl."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from spe_dist.training.metrics import read_rows
from spe_dist.utils.run_files import CURVES_FILE, METRICS_FILE

Rows = Sequence[dict[str, Any]]


def draw_curves(folder: Path) -> Path | None:
    """Draw folder/curves.png; None where there are no rows yet."""
    return draw_panels(folder, _draw)


def draw_panels(folder: Path, draw: Callable[[Any, Rows, Rows], None]) -> Path | None:
    """folder/curves.png of two times three panels that `draw(panels, training rows, evaluation rows)` fills."""
    rows = read_rows(folder / METRICS_FILE, "train")
    evaluations = read_rows(folder / METRICS_FILE, "evaluation")
    if not rows:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 3)
    draw(panels, rows, evaluations)
    for panel in panels.flat:
        panel.set_xlabel("step")
        panel.grid(alpha=0.3)
        if panel.get_legend_handles_labels()[0]:
            panel.legend(fontsize="small")
    path = folder / CURVES_FILE
    figure.savefig(path, dpi=110)
    return path


def _draw(panels: Any, rows: Rows, evaluations: Rows) -> None:
    draw_panel(panels[0, 0], rows, {"loss": "total"}, "total loss (nats)")
    draw_panel(panels[0, 1], rows, {"tbo_loss": "training"}, "token boundary (nats a piece)")
    draw_points(
        panels[0, 1], evaluations, {"heldout/tbo_nats": "held out", "heldout/tbo_count_model_nats": "count model"}
    )
    draw_panel(panels[0, 2], rows, {"spo_loss": "training"}, "span permutation (nats a span)")
    draw_points(panels[0, 2], evaluations, {"heldout/spo_nats": "held out", "heldout/spo_entropy": "entropy of labels"})
    draw_panel(panels[1, 0], rows, {"cspo_loss": "training"}, "contrastive (nats a sentence)")
    draw_panel(panels[1, 1], rows, {"contrastive_top1": "training, queue"}, "contrastive top-1")
    draw_points(
        panels[1, 1],
        evaluations,
        {
            "heldout/top1_random": "held out, random",
            "heldout/top1_same_layout": "held out, same layout",
            "heldout/top1_same_layout_control": "same layout, control",
        },
    )
    draw_panel(panels[1, 2], rows, {"learning_rate": "learning rate"}, "learning rate")


def draw_panel(panel: Any, rows: Sequence[dict[str, Any]], names: dict[str, str], title: str) -> None:
    panel.set_title(title)
    for name, label in names.items():
        points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
        if not points:
            continue
        steps, values = zip(*points, strict=True)
        if len(values) < 50 or name.endswith("learning_rate"):
            panel.plot(steps, values, label=label)
            continue
        panel.plot(steps, values, alpha=0.25, linewidth=0.8, color="C0")
        panel.plot(steps, smooth(values), label=f"{label}, smoothed", color="C0")


def draw_points(panel: Any, rows: Sequence[dict[str, Any]], names: dict[str, str]) -> None:
    for i, (name, label) in enumerate(names.items(), start=1):
        points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
        if points:
            panel.plot(*zip(*points, strict=True), marker=".", label=label, color=f"C{i}")


def smooth(values: Sequence[float]) -> list[float]:
    """Means of the values around each, over about a thirtieth of the curve; narrower at its ends."""
    reach = max(2, len(values) // 60)
    sums = [0.0, *itertools.accumulate(values)]
    smoothed = []
    for i in range(len(values)):
        around = min(reach, i, len(values) - 1 - i)
        smoothed.append((sums[i + around + 1] - sums[i - around]) / (2 * around + 1))
    return smoothed
