"""The learning rate: linear warm-up, then linear decay to zero (paper, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

from spe_dist.config.shared import OptimizerConfig


@dataclass(frozen=True)
class Schedule:
    """Rises from peak / warmup_steps in the first step to `peak`, then falls by equal amounts to 0 after the last."""

    peak: float
    warmup_steps: int
    total_steps: int

    @classmethod
    def of(cls, settings: OptimizerConfig, total_steps: int, peak: float) -> Schedule:
        """The warm-up in steps as set, or a share of the run."""
        warmup_steps = settings.warmup_steps or round(settings.warmup_fraction * total_steps)
        return cls(peak, warmup_steps, total_steps)

    def rate(self, applied_steps: int) -> float:
        """The rate of the step that follows `applied_steps` applied ones; above zero in the last step of the run."""
        if self.is_warming_up(applied_steps):
            return self.peak * (applied_steps + 1) / self.warmup_steps
        decay_steps = max(1, self.total_steps - self.warmup_steps)
        return self.peak * max(0, self.total_steps - applied_steps) / decay_steps

    def is_warming_up(self, applied_steps: int) -> bool:
        """Whether the step that follows `applied_steps` applied ones is of the warm-up."""
        return applied_steps < self.warmup_steps
