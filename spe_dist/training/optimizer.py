"""AdamW as both trainings use it (METHOD, Schedules), and its parameter groups."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from spe_dist.config.shared import EngineSettings
from spe_dist.model.kernels import default_device, use_apex


def make_adamw(
    groups: Iterable[dict[str, Any]], config: EngineSettings, device: torch.device | str | None = None
) -> torch.optim.Optimizer:
    """AdamW as METHOD's Schedules: torch's fused one on CPU and CUDA, apex's FusedAdam where it is asked for.

    DeepSpeed's ZeRO replaces the groups' parameters by flat float32 partitions after this; both optimizers only look
    at `param_groups` when they step, so that is fine, also where the partitions are offloaded to the CPU.
    """
    device = torch.device(device) if device is not None else default_device()
    settings = config.optimizer
    options: dict[str, Any] = {
        "lr": settings.learning_rate,
        "betas": (settings.adam_beta1, settings.adam_beta2),
        "eps": settings.adam_eps,
        "weight_decay": settings.weight_decay,
    }
    if use_apex(config.train.kernels, device):
        fused_adam = importlib.import_module("apex.optimizers").FusedAdam
        return fused_adam(list(groups), adam_w_mode=True, **options)
    fused = device.type in ("cpu", "cuda")
    return torch.optim.AdamW(list(groups), fused=fused, foreach=None if fused else True, **options)


def param_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups by name order: matrices and tables decay, biases and LayerNorm (all one-dimensional) do not."""
    decay: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            shape = getattr(parameter, "ds_shape", parameter.shape)  # of a whole one, also where ranks have parts of it
            (plain if len(shape) < 2 else decay).append(parameter)
    groups = [{"params": decay, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def optimizer_device(ds_config: Mapping[str, Any], device: torch.device) -> torch.device:
    """Where the optimizer steps: the CPU under ZeRO-Offload, else `device`."""
    offload = ds_config["zero_optimization"].get("offload_optimizer") or {}
    return device if offload.get("device", "none") == "none" else torch.device("cpu")
