"""The learning rate: linear warm-up, then linear decay to zero (paper, section 3.3)."""

from __future__ import annotations


def learning_rate(applied_steps: int, *, peak: float, warmup_steps: int, total_steps: int) -> float:
    """The rate of the step that follows `applied_steps` applied ones.

    Rises from peak / warmup_steps in the first step to peak, then falls by equal amounts; the last step of the run
    still has a rate above zero.
    """
    if applied_steps < warmup_steps:
        return peak * (applied_steps + 1) / warmup_steps
    decay_steps = max(1, total_steps - warmup_steps)
    return peak * max(0, total_steps - applied_steps) / decay_steps


def warmup_length(warmup_steps: int, warmup_fraction: float, total_steps: int) -> int:
    """Warm-up in applied steps: as set, or a share of the run."""
    return warmup_steps or round(warmup_fraction * total_steps)
