"""The learning rate of each group of parameters, where the encoder learns at others than the heads (METHOD, Beyond the
paper): lower layers slower, and not at all in the first steps.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from spe_dist.config.pretraining import OptimizerConfig
from spe_dist.training.optimizer import is_matrix, layers_below_top, param_groups
from spe_dist.training.rates.schedule import Schedule

Key = tuple[float, bool]  # share of the learning rate, whether it is of the encoder


@dataclass(frozen=True)
class StepRates:
    """Of one step: the rate of each parameter group, that of the encoder's top layer, and whether it learns at all."""

    groups: list[float]
    encoder: float
    encoder_is_frozen: bool


@dataclass(frozen=True)
class GroupRates:
    """The rates of all steps. `keys`: of each parameter group of the optimizer, in its order."""

    keys: Sequence[Key]
    settings: OptimizerConfig
    schedule: Schedule

    def at(self, applied_steps: int) -> StepRates:
        """The rates of the step that follows `applied_steps` applied ones."""
        heads = self.schedule.rate(applied_steps)
        frozen_steps = self.settings.freeze_encoder_steps
        encoder, joined = heads, applied_steps - frozen_steps + 1
        if frozen_steps:
            warm_up = min(1.0, joined / max(1, self.schedule.warmup_steps))
            encoder = 0.0 if joined <= 0 else min(heads, self.schedule.peak * warm_up)
        applied = encoder * self._fresh_adam(joined, applied_steps + 1) if encoder and frozen_steps else encoder
        rates = [share * (applied if of_encoder else heads) for share, of_encoder in self.keys]
        return StepRates(rates, encoder, joined <= 0)

    def _fresh_adam(self, own_step: int, step: int) -> float:
        """What makes the steps of an Adam whose moments began at 0 late those of one that began then.

        The moments of a frozen encoder are 0, while Adam's count of steps, by which it corrects their bias, goes on.
        """
        return _bias_correction(own_step, self.settings) / _bias_correction(step, self.settings)


def _bias_correction(step: int, settings: OptimizerConfig) -> float:
    """By what Adam's correction multiplies its update in a step, 1, 2, ...: see Kingma and Ba, section 2."""
    return math.sqrt(1.0 - settings.adam_beta2**step) / (1.0 - settings.adam_beta1**step)


def rates_differ(settings: OptimizerConfig) -> bool:
    """Whether parameters have rates of their own."""
    return settings.freeze_encoder_steps > 0 or settings.layer_decay != 1.0 or settings.head_learning_rate > 0


def make_groups(model: nn.Module, layers: int, settings: OptimizerConfig) -> list[dict[str, Any]]:
    """The parameter groups of a run; with one rate for all, matrices and vectors as `param_groups` has them."""
    if not rates_differ(settings):
        return param_groups(model, settings.weight_decay)
    return [
        {"params": parameters, "weight_decay": settings.weight_decay if decays else 0.0}
        for (_, decays), parameters in _grouped(model, layers, settings).items()
    ]


def group_rates(model: nn.Module, layers: int, settings: OptimizerConfig, schedule: Schedule) -> GroupRates | None:
    """The rates of the groups that `make_groups` gives for the same model; None where all have one rate."""
    if not rates_differ(settings):
        return None
    return GroupRates([key for key, _ in _grouped(model, layers, settings)], settings, schedule)


def _grouped(model: nn.Module, layers: int, settings: OptimizerConfig) -> Mapping[tuple[Key, bool], list[nn.Parameter]]:
    """Parameters by their key and whether they decay, in the order of their names in the model."""
    found: dict[tuple[Key, bool], list[nn.Parameter]] = defaultdict(list)
    of_heads = settings.head_learning_rate / settings.learning_rate if settings.head_learning_rate else 1.0
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            below_top = layers_below_top(name, layers)
            key = (of_heads, False) if below_top is None else (settings.layer_decay**below_top, True)
            found[key, is_matrix(parameter)].append(parameter)
    return found
