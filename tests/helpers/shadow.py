"""A GPU on paper: tensors on torch's device `meta` that have values all the same, kept beside them on the CPU.

The code under test takes the way of a GPU (`spe_dist.model.devices`), torch checks shapes, types and devices as it does
for any device, mixing it with the CPU's tensors fails as on a GPU, and what comes out can be compared. Kernels that a
CPU lacks are computed plainly.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from spe_dist.model import dropout

CPU, META = torch.device("cpu"), torch.device("meta")
# Operations whose first result is the result; the others are for their own backward pass, as each device likes them.
LEAVES_STATE = {"_embedding_bag", "_embedding_bag_forward_only", "native_layer_norm"}
ATTENTION = {"_flash_attention_forward", "_flash_attention_backward", "_varlen_attn", "_varlen_attn_backward"}


class Shadow(TorchDispatchMode):
    """Inside `with Shadow() as shadow:` what is moved to `meta` keeps its values; `shadow.read(x)` looks at them.

    Tensors that come to `meta` in another way have none, and the first operation on them fails.
    """

    def __init__(self) -> None:
        super().__init__()
        self._storages: dict[int, tuple[Any, Any]] = {}  # the first keeps its address from being used again
        self._inner: dict[
            int, Tensor
        ] = {}  # what a kernel leaves to its own backward pass, in the CPU's shape and type
        dropout._kept_columns.cache_clear()  # tensors on `meta` that were made outside have no values

    def read(self, tensor: Tensor) -> Tensor:
        """The values of a tensor on `meta`, as a view on the CPU."""
        storage = tensor.untyped_storage()
        if storage._cdata in self._inner:
            return self._inner[storage._cdata]
        if tensor.numel() == 0:
            return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
        assert storage._cdata in self._storages, f"{tuple(tensor.shape)} on meta has no values"
        values = torch.empty(0, dtype=tensor.dtype)
        return values.set_(self._storages[storage._cdata][1], tensor.storage_offset(), tensor.shape, tensor.stride())

    def _write(self, tensor: Tensor, values: Tensor) -> None:
        """Give a new tensor on `meta` its values; nothing to do where it shares those of another."""
        assert tensor.shape == values.shape and tensor.dtype == values.dtype, (tensor, values.shape, values.dtype)
        storage = tensor.untyped_storage()
        if tensor.numel() and storage._cdata not in self._storages:
            self._storages[storage._cdata] = storage, torch.UntypedStorage(storage.nbytes())
            self.read(tensor).copy_(values)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        if not any(leaf == META or (isinstance(leaf, Tensor) and leaf.device == META) for leaf in leaves):
            return func(*args, **kwargs)
        with torch._C.DisableTorchFunction(), self:  # in inference mode composite operations arrive whole
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        name = func.overloadpacket.__name__
        if name in ("_to_copy", "copy_"):
            return self._copy(func, args, kwargs)
        _refuse_mixed(func, args, kwargs)
        real_args, real_kwargs = tree_map(self._real, (args, kwargs))
        if name in ATTENTION:
            result = func(*args, **kwargs)
            for tensor, values in zip(tree_leaves(result), _attention(name, *real_args), strict=False):
                self._write(tensor, values.to(tensor.dtype))
            for tensor in tree_leaves(result):  # states of kernels that only they themselves read
                self._write(tensor, torch.zeros(tensor.shape, dtype=tensor.dtype))
            return result
        if _shares_storage(func):
            return func(*args, **kwargs)
        real_result = func(*real_args, **real_kwargs)
        try:
            result = func(*args, **kwargs)
        except (NotImplementedError, RuntimeError):  # its shape depends on values
            result = tree_map(_like, real_result)
        for i, (tensor, values) in enumerate(zip(tree_leaves(result), tree_leaves(real_result), strict=True)):
            if isinstance(tensor, Tensor) and i > 0 and name in LEAVES_STATE:
                self._storages[tensor.untyped_storage()._cdata] = tensor.untyped_storage(), None
                self._inner[tensor.untyped_storage()._cdata] = values
            elif isinstance(tensor, Tensor):
                self._write(tensor, values)
        return result

    def _real(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.read(value) if value.device == META else value
        return CPU if value == META else value

    def _copy(self, func: Any, args: Any, kwargs: Any) -> Any:
        real_args, real_kwargs = tree_map(self._real, (args, kwargs))
        values = func(*real_args, **real_kwargs)
        target = args[0].device if func.overloadpacket.__name__ == "copy_" else kwargs.get("device", args[0].device)
        if target == CPU:
            return args[0] if func.overloadpacket.__name__ == "copy_" else values
        result = func(*args, **kwargs)
        self._write(result, values)
        return result


def _refuse_mixed(func: Any, args: Any, kwargs: Any) -> None:
    """CUDA kernels take numbers of the CPU (0-dim tensors) and its indices, and nothing else of it."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    mixed = [t for t in tensors if t.device == CPU and t.dim() > 0]
    assert not mixed or func.overloadpacket.__name__.startswith("index"), f"{func}: CPU and device are mixed"


def _shares_storage(func: Any) -> bool:
    returns = func._schema.returns
    return bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)


def _like(value: Any) -> Any:
    return (
        torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=META)
        if isinstance(value, Tensor)
        else value
    )


def _attention(name: str, *args: Any) -> tuple[Tensor, ...]:
    """softmax(q k' / sqrt(D)) v of each sequence, without dropout; or its gradients."""
    if name.endswith("forward") or name == "_varlen_attn":
        q, k, v, borders = args[0], args[1], args[2], args[3]
        return (torch.cat([_forward(*part)[0] for part in _sequences(borders, q, k, v)]),)
    grad, q, k, v = args[:4]
    borders = next(a for a in args[4:] if isinstance(a, Tensor) and a.dtype == torch.int32)
    parts = [_backward(*part) for part in _sequences(borders, grad, q, k, v)]
    return tuple(torch.cat(gradients) for gradients in zip(*parts, strict=True))


def _sequences(borders: Tensor, *tensors: Tensor) -> Any:
    for start, end in itertools.pairwise(borders.tolist()):
        yield tuple(tensor[start:end].float().transpose(0, 1) for tensor in tensors)


def _forward(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    weights = (q @ k.transpose(1, 2) * q.shape[2] ** -0.5).softmax(2)
    return (weights @ v).transpose(0, 1), weights


def _backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    out, weights = _forward(q, k, v)
    of_weights = grad @ v.transpose(1, 2)
    of_scores = weights * (of_weights - (grad * out.transpose(0, 1)).sum(2, keepdim=True)) * q.shape[2] ** -0.5
    gradients = of_scores @ k, of_scores.transpose(1, 2) @ q, weights.transpose(1, 2) @ grad
    return tuple(gradient.transpose(0, 1) for gradient in gradients)  # type: ignore[return-value]
