"""Curves of a pre-training run as a picture."""

from __future__ import annotations

import math
from pathlib import Path

from spe_dist.training.curves import Panel, Rows, draw_panels, read_training, without_failing


@without_failing
def draw_curves(folder: Path) -> Path | None:
    """Draw folder/curves.png; None where there are no rows yet."""
    rows, evaluations = read_training(folder)
    if not rows:
        return None
    filled = queue_filled_at(rows)
    # the contrastive loss of a model that cannot distinguish the key from the negatives
    rows = [{**row, "chance": math.log(1 + row["queue_fill"]) if row.get("queue_fill") else None} for row in rows]
    return draw_panels(folder, f"Pre-training, {folder.name}", _panels(filled), rows, evaluations)


def queue_filled_at(rows: Rows) -> int:
    """The step at which the queues of keys no longer grow; 0 where there are none."""
    fills = [(row["step"], row.get("queue_fill") or 0) for row in rows]
    most = max(fill for _, fill in fills)
    return next(step for step, fill in fills if fill == most) if most else 0


def _panels(filled: int) -> list[Panel]:
    grey = "grey: the queue of negatives fills, so the contrastive loss rises" if filled else ""
    return [
        Panel(
            "total loss (nats)",
            f"weighted sum of the objectives{'; ' if grey else ''}{grey}",
            {"loss": "training"},
            shaded_until=filled,
        ),
        Panel(
            "predicted pieces (nats a piece)",
            "token boundary objective, below the dashed line: better than counting pieces; MLM where it is on",
            {"tbo_loss": "training", "mlm_loss": "MLM, training"},
            {"heldout/tbo_nats": "held out", "heldout/mlm_nats": "MLM, held out"},
            {"heldout/tbo_count_model_nats": "count model, held out"},
        ),
        Panel(
            "span permutation (nats a span)",
            "below the dashed line: better than the best constant guess",
            {"spo_loss": "training"},
            {"heldout/spo_nats": "held out"},
            {"heldout/spo_entropy": "entropy of the labels"},
        ),
        Panel(
            "contrastive (nats a sentence)",
            f"dashed: chance, the key is one of those in the queue; {grey}",
            {"cspo_loss": "training"},
            chance="chance",
            shaded_until=filled,
        ),
        Panel(
            "contrastive top-1",
            "control: all words hidden. Above it the words are used, not the layout alone",
            {"contrastive_top1": "training, of the queue"},
            {"heldout/top1_random": "held out, of all", "heldout/top1_same_layout": "held out, of the same layout"},
            {
                "heldout/top1_same_layout_control": "control, same layout",
                "heldout/top1_same_layout_chance": "chance, same layout",
            },
            per_cent=True,
        ),
        Panel(
            "learning rate",
            "as set: linear warm-up, then linear decay to 0",
            {"learning_rate": "learning rate", "encoder_learning_rate": "encoder"},
            smoothed=False,
        ),
    ]
