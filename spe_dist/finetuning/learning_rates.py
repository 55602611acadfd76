"""Discriminative fine-tuning: a peak learning rate for each layer of the encoder and one for all heads (METHOD)."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from torch import nn

from spe_dist.config.finetuning import OptimizerConfig
from spe_dist.export.parts import SPE
from spe_dist.training.optimizer import layers_below_top

CONTEXT_ENCODER = "context_encoder."
SPANS = -1  # in place of a layer: span and span pair encoder


@dataclass(frozen=True)
class RateGroups:
    """Parameter groups for the optimizer, and the peak learning rate of each, in the same order."""

    groups: list[dict[str, Any]]
    peaks: tuple[float, ...]

    def rates(self, factor: float) -> list[float]:
        """The rates of a step: the schedule's factor, 0 to 1, times each group's own peak."""
        return [peak * factor for peak in self.peaks]


def rate_groups(model: nn.Module, layers: int, settings: OptimizerConfig) -> RateGroups:
    """Two groups for each depth: matrices and tables decay, biases and LayerNorm (one-dimensional) do not.

    The top layer and a pooler have `learning_rate`, each layer below `layer_decay` times that of the one above, the
    embeddings as the lowest layer of all; span and span pair encoder have `span_learning_rate`, the heads
    `head_learning_rate`. Groups do not depend on the rates, so that a run may resume with others.
    """
    found: dict[tuple[int | None, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            found[depth_of(name, layers), parameter.ndim >= 2].append(parameter)
    peaks = tuple(peak_rate(below_top, settings) for below_top, _ in found)
    groups = [
        {"params": parameters, "lr": peak, "weight_decay": settings.weight_decay if decays else 0.0}
        for ((_, decays), parameters), peak in zip(found.items(), peaks, strict=True)
    ]
    return RateGroups(groups, peaks)


def depth_of(name: str, layers: int) -> int | None:
    """How deep the parameter `name` of a JointModel lies, whose encoder has so many layers; SPANS; None: in a head."""
    below_top = layers_below_top(name, layers)
    return SPANS if below_top is None and name.startswith((SPE, CONTEXT_ENCODER)) else below_top


def peak_rate(below_top: int | None, settings: OptimizerConfig) -> float:
    """The peak learning rate of the encoder's layer `below_top`, of SPANS, or of the heads (None)."""
    if below_top == SPANS and settings.span_learning_rate:
        return settings.span_learning_rate
    if below_top is None or below_top == SPANS:
        return settings.head_learning_rate
    return settings.learning_rate * settings.layer_decay**below_top


def uncorrected_factor(applied_steps: int, settings: OptimizerConfig) -> float:
    """What the rates of the step after `applied_steps` are multiplied by; 1 where AdamW's bias correction is on.

    AdamW divides its moments by 1 - beta^t. Times (1 - beta1^t) / sqrt(1 - beta2^t) its steps are those of an AdamW
    that does not, as in the authors' released code, but for epsilon and for weight decay, which grows with them: 2.7 at
    step 145, 1.4 at 725, 1 after some thousands.
    """
    if settings.adam_bias_correction:
        return 1.0
    step = applied_steps + 1
    return (1.0 - settings.adam_beta1**step) / math.sqrt(1.0 - settings.adam_beta2**step)
