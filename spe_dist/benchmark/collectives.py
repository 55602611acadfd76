"""What a rank hands to collectives: calls and bytes by kind, counted where torch gives them to a process group.

That is below torch.distributed and DeepSpeed's own wrappers, so every call is seen, whoever made it and under
whichever name. What goes over the network depends on the algorithm; `scaling.traffic.sent_bytes` has the usual one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Operations of torch's library c10d, by the kind of collective; those that are not listed count by their own names.
KINDS = {
    "allreduce_": "all-reduce",
    "allreduce_coalesced_": "all-reduce",
    "_allgather_base_": "all-gather",
    "allgather_": "all-gather",
    "allgather_coalesced_": "all-gather",
    "allgather_into_tensor_coalesced_": "all-gather",
    "_reduce_scatter_base_": "reduce-scatter",
    "reduce_scatter_": "reduce-scatter",
    "reduce_scatter_tensor_coalesced_": "reduce-scatter",
    "broadcast_": "broadcast",
    "reduce_": "reduce",
    "alltoall_base_": "all-to-all",
    "barrier": "barrier",
}


class CollectiveCounter(TorchDispatchMode):
    """Counts the collectives inside `with CollectiveCounter() as counter:`, those of backward passes too.

    Attributes:
        calls: by kind.
        bytes: by kind: the whole tensor that is reduced or broadcast, all that is gathered, all that is scattered.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def by_kind(self) -> dict[str, tuple[int, int]]:
        """(calls, bytes) by kind."""
        return {kind: (count, self.bytes[kind]) for kind, count in self.calls.items()}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func.namespace == "c10d":
            name = func.overloadpacket.__name__
            kind = KINDS.get(name, name)
            self.calls[kind] += 1
            self.bytes[kind] += _handed(args) if kind != "barrier" else 0
        return func(*args, **(kwargs or {}))


def _handed(args: tuple[Any, ...]) -> int:
    """Bytes of the larger of what goes in and what comes out, which for a reduced tensor are the same."""
    sizes = [
        sum(tensor.nbytes for tensor in tree_leaves(argument) if isinstance(tensor, Tensor)) for argument in args[:2]
    ]
    return max(sizes, default=0)
