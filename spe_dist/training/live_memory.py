"""The memory that tensors take while a computation runs, counted exactly: every storage from its making to its end.

What an allocator rounds up, keeps or fragments is not in it, so it is the same on every machine and in every run.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Inside this context: bytes of the storages made since it began that are alive, and the most there were at once.

    Backward passes count too, on a CPU, where they run in the thread that asks for them. `meta` takes no memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        before = {_identity(tensor) for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and not tensor.is_meta and _identity(tensor) not in before | self._known:
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        identity, size = storage._cdata, storage.nbytes()
        self._known.add(identity)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._end, identity, size)

    def _end(self, identity: int, size: int) -> None:
        self._known.discard(identity)
        self.live -= size


def _identity(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def peak_bytes(computation: Callable[[], Any]) -> int:
    """The most bytes of new tensors that were alive at once while `computation` ran."""
    with LiveMemory() as memory:
        computation()
    return memory.peak
