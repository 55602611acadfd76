"""How often code launches a kernel and how often it waits for the device, counted operation by operation.

Both are counted where torch hands an operation to a device, so any device will do, `meta` too: what runs there takes
the way of a GPU without computing anything (`spe_dist.model.devices`). An operation counts as one launch, though some,
such as a sort, launch several kernels; views and empty tensors launch none. A wait is what makes the host stand still
until the device has come as far: a result that decides a shape or is read as a number, and a copy out of memory that
is not pinned, or back to the host.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Operations of torch's aten library, by name.
ALLOCATIONS = {
    "_unsafe_view",
    "empty",
    "empty_like",
    "empty_permuted",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "resize_",
    "set_",
}
COPIES = {"_to_copy", "copy_"}
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
# Their results decide a shape or are a number, so the host waits for them.
WAITS = {
    "_local_scalar_dense",
    "_unique",
    "_unique2",
    "allclose",
    "bincount",
    "equal",
    "histc",
    "is_nonzero",
    "isin",  # sorts out repeated elements unless there are very few
    "item",
    "masked_select",
    "nonzero",
    "unique_consecutive",
    "unique_dim",
    "unique_dim_consecutive",
}


FROM_NUMBERS = (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor)


class LaunchCounter(TorchDispatchMode):
    """Counts what runs inside `with LaunchCounter(device) as counter:`, backward passes too.

    Attributes:
        launches: operations that launch kernels on the device, by phase and name.
        waits: operations that wait for it, by phase and name.
    """

    def __init__(self, device: torch.device | str) -> None:
        """`device`: whose work is counted; what the host computes beside a GPU is not."""
        super().__init__()
        self.device_type = torch.device(device).type
        self.launches: Counter[tuple[str, str]] = Counter()
        self.waits: Counter[tuple[str, str]] = Counter()
        self._phase = ""
        self._numbers: AbstractContextManager[Any] = _NumbersSent(self)

    def __enter__(self) -> Self:
        self._numbers.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._numbers.__exit__(*error)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What runs inside is counted under this name; an inner phase takes it out of the outer one."""
        before, self._phase = self._phase, name
        try:
            yield
        finally:
            self._phase = before

    def launches_by_phase(self) -> dict[str, int]:
        """Numbers of launches in the order in which the phases began."""
        totals: Counter[str] = Counter()
        for (phase, _), count in self.launches.items():
            totals[phase] += count
        return dict(totals)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        # In inference mode an operation that consists of others arrives whole.
        with torch._C.DisableTorchFunction(), self:
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        key = (self._phase, func.overloadpacket.__name__)
        if self._waits(func, args, kwargs):  # before it runs: on `meta` such an operation may fail
            self.waits[key] += 1
        result = func(*args, **kwargs)
        if self._launches(func, (args, kwargs), result):
            self.launches[key] += 1
        return result

    def _on_device(self, values: Any) -> list[Tensor]:
        return [v for v in tree_leaves(values) if isinstance(v, Tensor) and v.device.type == self.device_type]

    def _launches(self, func: Any, inputs: Any, result: Any) -> bool:
        if func.overloadpacket.__name__ in ALLOCATIONS or _is_view(func):
            return False
        written = self._on_device(result) or self._on_device(inputs)
        return any(tensor.numel() > 0 for tensor in written)

    def _waits(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        name, overload = func.overloadpacket.__name__, func._overloadname
        if not self._on_device((args, kwargs)) and name not in COPIES:
            return False
        if name == "repeat_interleave":
            return kwargs.get("output_size") is None
        if name in INDEXED:
            indices = [index for index in args[1] if index is not None]
            here = self._on_device(indices)
            return len(here) < len(indices) or any(index.dtype in (torch.bool, torch.uint8) for index in here)
        if name in COPIES:
            return self._copy_waits(name, args, kwargs)
        return name in WAITS or overload in ("Tensor_Scalar_out",) or (name == "arange" and bool(args))

    def _copy_waits(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether tensors move: to the device with `non_blocking` is taken to be from pinned memory."""
        source = args[1] if name == "copy_" else args[0]
        target = args[0].device if name == "copy_" else torch.device(kwargs.get("device") or source.device)
        if source.device.type == target.type or self.device_type not in (source.device.type, target.type):
            return False
        non_blocking = kwargs.get("non_blocking", args[2] if len(args) > 2 else False)
        return target.type != self.device_type or not non_blocking


class _NumbersSent(TorchFunctionMode):
    """Counts numbers that become tensors on the device, or an index there: torch copies them out of its sight."""

    def __init__(self, counter: LaunchCounter) -> None:
        super().__init__()
        self.counter = counter

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in FROM_NUMBERS:
            is_sent = result.device.type == self.counter.device_type and not isinstance(args[-1], Tensor)
        else:
            is_index = func in (Tensor.__getitem__, Tensor.__setitem__)
            is_sent = is_index and bool(self.counter._on_device(args[0])) and _holds_list(args[1])
        if is_sent:
            self.counter.waits[self.counter._phase, func.__name__] += 1
        return result


def _holds_list(index: Any) -> bool:
    return any(isinstance(part, list | np.ndarray) for part in (index if isinstance(index, tuple) else (index,)))


def _is_view(func: Any) -> bool:
    returns = func._schema.returns
    return bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)
