"""AdamW as both trainings use it (METHOD, Schedules), and its parameter groups."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from spe_dist.config.shared import EngineSettings
from spe_dist.model.kernels import default_device, use_apex

ENCODER = "spe.encoder."  # parameter names of the sentence encoder, in both trainings' models
_LAYER = re.compile(rf"{re.escape(ENCODER)}encoder\.layer\.(\d+)\.")


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
            (decay if is_matrix(parameter) else plain).append(parameter)
    groups = [{"params": decay, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def is_matrix(parameter: nn.Parameter) -> bool:
    """Whether a parameter has two dimensions or more, also where this rank has a part of it."""
    return len(getattr(parameter, "ds_shape", parameter.shape)) >= 2


def layers_below_top(name: str, layers: int) -> int | None:
    """How deep the parameter `name` of a model lies whose encoder has so many layers; None: not in the encoder.

    The top layer and a pooler have 0, the embeddings as the lowest layer of all `layers`.
    """
    if not name.startswith(ENCODER):
        return None
    match = _LAYER.match(name)
    if match:
        return layers - 1 - int(match[1])
    return layers if name.startswith(f"{ENCODER}embeddings.") else 0


def optimizer_device(ds_config: Mapping[str, Any], device: torch.device) -> torch.device:
    """Where the optimizer steps: the CPU under ZeRO-Offload, else `device`."""
    offload = ds_config["zero_optimization"].get("offload_optimizer") or {}
    return device if offload.get("device", "none") == "none" else torch.device("cpu")
