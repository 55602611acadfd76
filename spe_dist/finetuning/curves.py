"""Curves of a fine-tuning run as a picture, from its metrics.jsonl."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spe_dist.training.curves import Rows, draw_panel, draw_panels, draw_points


def draw_curves(folder: Path) -> Path | None:
    """Draw folder/curves.png; None where there are no rows yet."""
    return draw_panels(folder, _draw)


def _draw(panels: Any, rows: Rows, evaluations: Rows) -> None:
    draw_panel(panels[0, 0], rows, {"loss": "total"}, "total loss (nats)")
    draw_panel(panels[0, 1], rows, {"detection_loss": "training"}, "detection (nats a word)")
    draw_panel(panels[0, 2], rows, {"typing_loss": "training"}, "typing (nats a candidate)")
    draw_panel(panels[1, 0], rows, {"relation_loss": "training"}, "relation (nats a candidate)")
    panels[1, 1].set_title("F1 on dev")
    names = {"dev/entity_f1": "entity", "dev/relation_f1": "relation", "dev/ent_rel_f1": "Ent+Rel"}
    draw_points(panels[1, 1], evaluations, names)
    draw_panel(panels[1, 2], rows, {"learning_rate": "top layer", "head_learning_rate": "heads"}, "learning rate")
