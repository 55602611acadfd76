"""Curves of a fine-tuning run as a picture."""

from __future__ import annotations

from pathlib import Path

from spe_dist.training.curves import Panel, Rows, draw_panels, read_training, without_failing


@without_failing
def draw_curves(folder: Path) -> Path | None:
    """Draw folder/curves.png; None where there are no rows yet."""
    rows, evaluations = read_training(folder)
    if not rows:
        return None
    return draw_panels(folder, f"Fine-tuning, {folder.name}", _panels(gold_until(rows)), rows, evaluations)


def gold_until(rows: Rows) -> int:
    """The last step of the beginning in which all sentences take their gold entities."""
    mixed = (row["step"] for row in rows if row.get("gold_sentences", 1.0) < 1.0)
    return next(mixed, rows[-1]["step"] + 1) - 1


def _panels(gold_steps: int) -> list[Panel]:
    candidates = "grey: relations between gold entities; then ever more between predicted ones"
    return [
        Panel(
            "total loss (nats)",
            "detection + typing + relation; candidates change with the predictions",
            {"loss": "training"},
            shaded_until=gold_steps,
        ),
        Panel("detection (nats a word)", "tags of all words", {"detection_loss": "training"}),
        Panel("typing (nats a candidate)", "gold and predicted spans", {"typing_loss": "training"}),
        Panel(
            "relation (nats a candidate)",
            candidates,
            {"relation_loss": "training"},
            shaded_until=gold_steps,
        ),
        Panel(
            "F1 on dev",
            "exact match; the best epoch by entity + relation with types is kept",
            {},
            {"dev/entity_f1": "entity", "dev/relation_f1": "relation", "dev/ent_rel_f1": "relation with types"},
            per_cent=True,
        ),
        Panel(
            "learning rate",
            "as set: linear warm-up, then linear decay to 0; lower layers have less",
            {"learning_rate": "top layer", "head_learning_rate": "heads"},
            smoothed=False,
        ),
    ]
