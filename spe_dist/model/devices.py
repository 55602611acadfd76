"""What the network asks of a device: the one place that tells GPUs from CPUs.

torch's device `meta`, whose tensors have shapes and no data, counts as a recent GPU. What runs there is what a GPU
would run, so that its kernels can be counted and its code checked on any machine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

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
    """torch.autocast, and on `meta`, for which torch has none, what matters of it."""
    if device.type == "meta":
        wanted = dtype if enabled else None
        return _meta_autocast(wanted) if wanted is not _meta_dtype.get() else contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype, enabled=enabled)


def product_dtype(weight: Tensor, device: torch.device | None = None) -> torch.dtype:
    """The type that a linear layer of such weights gives here: autocast's where that is on, else the weights'.

    `device`: where it will compute, if the weights are not there yet.
    """
    device_type = (device or weight.device).type
    if device_type == "meta":
        return _meta_dtype.get() or weight.dtype
    return torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else weight.dtype


_meta_dtype: ContextVar[torch.dtype | None] = ContextVar("type of products on meta", default=None)
_PRODUCTS = {F.linear, torch.bmm, torch.einsum, torch.matmul, Tensor.__matmul__}
_IN_FLOAT32 = {F.layer_norm}


class _MetaAutocast(TorchFunctionMode):
    """Products in the type of `_meta_dtype`, norms in float32, as CUDA's autocast has them."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        dtype = _meta_dtype.get()
        if dtype is not None and (func in _PRODUCTS or func in _IN_FLOAT32):
            cast_to = dtype if func in _PRODUCTS else torch.float32
            args, kwargs = tree_map(lambda value: _cast(value, cast_to), (args, dict(kwargs or {})))
        return func(*args, **(kwargs or {}))


def _cast(value: Any, dtype: torch.dtype) -> Any:
    on_meta = isinstance(value, Tensor) and value.device.type == "meta" and value.is_floating_point()
    return value.to(dtype) if on_meta else value


@contextlib.contextmanager
def _meta_autocast(dtype: torch.dtype | None) -> Iterator[None]:
    before = _meta_dtype.set(dtype)
    try:
        with _MetaAutocast():
            yield
    finally:
        _meta_dtype.reset(before)
