"""Where a model predicts, and in which precision it is fastest there."""

from __future__ import annotations

from typing import Any, cast

import torch

from spe_dist.errors import ConfigError


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or the GPU where there is one.

    Raises:
        ConfigError: the device is unknown, or torch does not see it.
    """
    if device in (None, "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(cast(Any, device))
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda"):
        raise ConfigError(f"device={str(device)!r} is unknown; choose auto, cpu, cuda or cuda:N")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device={str(device)!r}: torch sees {torch.cuda.device_count()} GPUs; choose cpu or auto")
    return chosen


def fast_bfloat16(device: torch.device | str) -> bool:
    """Whether matrix products in bfloat16 are faster than in float32 there, as far as the device tells."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if torch.device(device).type != "cpu":
        return False
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
