"""What the network asks of a device: the one place that tells GPUs from CPUs.

torch's device `meta`, whose tensors have shapes and no data, counts as a recent GPU. What runs there is what a GPU
would run, so that its kernels can be counted and its code checked on any machine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor

AMPERE = 8  # the first compute capability with 16-bit kernels for packed sequences


def is_gpu(device: torch.device) -> bool:
    """Whether tensors there take the way of a GPU."""
    return device.type in ("cuda", "meta")


def has_packed_kernels(device: torch.device) -> bool:
    """Whether a GPU has kernels for sequences that lie one behind the other."""
    return device.type == "meta" or torch.cuda.get_device_capability(device)[0] >= AMPERE


def send(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Tensors of one type from the CPU on `device`: in one copy out of pinned memory, so that nothing waits for it."""
    if device.type == "cpu":
        return list(tensors)
    sizes = [tensor.numel() for tensor in tensors]
    buffer = torch.empty(sum(sizes), dtype=tensors[0].dtype, pin_memory=device.type == "cuda")
    torch.cat([tensor.flatten() for tensor in tensors], out=buffer)
    parts = buffer.to(device, non_blocking=True).split(sizes)
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def autocast(
    device: torch.device, dtype: torch.dtype | None = None, enabled: bool = True
) -> contextlib.AbstractContextManager[object]:
    """torch.autocast where the device has it; `meta` has not, so that everything keeps its type there."""
    if device.type == "meta":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype, enabled=enabled)


def product_dtype(weight: Tensor) -> torch.dtype:
    """The type that a linear layer of such weights gives here: autocast's where that is on, else the weights'."""
    device_type = weight.device.type
    if device_type == "meta" or not torch.is_autocast_enabled(device_type):
        return weight.dtype
    return torch.get_autocast_dtype(device_type)
