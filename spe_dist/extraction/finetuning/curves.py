"""Curves of a fine-tuning run as a picture, from its metrics.jsonl."""

from __future__ import annotations

from pathlib import Path

from spe_dist.training.curves import CURVES_FILE, draw_panel, draw_points
from spe_dist.training.metrics import METRICS_FILE, read_rows


def draw_curves(folder: Path) -> Path | None:
    """Draw folder/curves.png; None where there are no rows yet."""
    rows = read_rows(folder / METRICS_FILE, "train")
    evaluations = read_rows(folder / METRICS_FILE, "evaluation")
    if not rows:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 3)
    draw_panel(panels[0, 0], rows, {"loss": "total"}, "total loss (nats)")
    draw_panel(panels[0, 1], rows, {"detection_loss": "training"}, "detection (nats a word)")
    draw_panel(panels[0, 2], rows, {"typing_loss": "training"}, "typing (nats a candidate)")
    draw_panel(panels[1, 0], rows, {"relation_loss": "training"}, "relation (nats a candidate)")
    panels[1, 1].set_title("F1 on dev")
    names = {"dev/entity_f1": "entity", "dev/relation_f1": "relation", "dev/ent_rel_f1": "Ent+Rel"}
    draw_points(panels[1, 1], evaluations, names)
    draw_panel(panels[1, 2], rows, {"learning_rate": "top layer", "head_learning_rate": "heads"}, "learning rate")
    for panel in panels.flat:
        panel.set_xlabel("step")
        panel.grid(alpha=0.3)
        if panel.get_legend_handles_labels()[0]:
            panel.legend(fontsize="small")
    path = folder / CURVES_FILE
    figure.savefig(path, dpi=110)
    return path
