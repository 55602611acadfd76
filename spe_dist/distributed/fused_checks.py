"""DeepSpeed's checks of the gradients, in one pass over all of them instead of one a parameter.

Before an update DeepSpeed looks for infinities, takes the norm and clips, parameter by parameter: 3,500 kernels for the
233 parameters of BERT-base in float16 at ZeRO 1 and 2. Here the norm of all gradients is taken once; it is finite where
every gradient is, so that it tells an overflow too. It is read once as well, and is a number of the host from then on.

What is replaced are private methods, and only on the optimizer at hand. They and those that call them are known by
their source (`KNOWN`): where DeepSpeed brings another one, its own methods run, and a line says so.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from spe_dist.distributed.gradient_norm import square_sum

CPU_PIECE = 1 << 14  # elements whose norm in float32 is exact enough, as DeepSpeed takes it of each tensor
KNOWN = {  # SHA-256 of `read_source`, first digits; deepspeed 0.19.8
    "DeepSpeedZeroOptimizer": {"abbc63c7702fba45"},
    "DeepSpeedZeroOptimizer_Stage3": {"1a998d32213490a2"},
    "BF16_Optimizer": {"2cbc907ab3e6597e"},  # ZeRO 1 in bfloat16
}


def fuse_checks(optimizer: Any) -> str | None:
    """Have an optimizer of DeepSpeed check its gradients in one pass, where this is known to give the same.

    Returns:
        A line for the user where DeepSpeed's own slower methods stay because their source is unknown, else None.
    """
    name = type(optimizer).__name__
    if name not in KNOWN or not _is_plain(optimizer):
        return None
    if fingerprint(type(optimizer)) not in KNOWN[name]:
        import deepspeed

        return (
            f"DeepSpeed {deepspeed.__version__} differs from the releases that are known here: its own checks of the "
            "gradients run, one for each parameter"
        )
    if name == "BF16_Optimizer":
        optimizer.get_grads_for_norm = FlatGradients(optimizer).get_grads_for_norm
    elif name == "DeepSpeedZeroOptimizer_Stage3":
        optimizer._get_norm_groups = PartitionNorms(optimizer).get_norm_groups
    else:
        checks = FusedChecks(optimizer)
        optimizer.has_overflow = checks.has_overflow
        optimizer.scaled_global_norm = checks.scaled_global_norm
        optimizer.unscale_and_clip_grads = checks.unscale_and_clip_grads
    return None


class FusedChecks:
    """Overflow, norm and clipping of `DeepSpeedZeroOptimizer`, from one norm of all gradients of all ranks."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer
        self._norm: float | None = None  # of the step that is being checked

    def has_overflow(self, partition_gradients: bool = True) -> bool:
        """Whether a gradient of any rank is infinite or no number."""
        norm = self._global_norm()
        self._norm = norm if math.isfinite(norm) else None
        return self._norm is None

    def scaled_global_norm(self, norm_type: int = 2) -> float:
        """The norm of the gradients of all ranks, times the loss scale; infinite where one of them is not finite."""
        assert norm_type == 2, norm_type
        norm, self._norm = self._norm, None
        return self._global_norm() if norm is None else norm

    def unscale_and_clip_grads(self, grad_groups_flat: Iterable[Tensor], total_norm: float) -> None:
        """Divide gradients by the loss scale and, where their norm is above `clip_grad`, down to that."""
        scale = self.optimizer.loss_scale
        if self.optimizer.clip_grad > 0:
            scale *= max(1.0, (total_norm / self.optimizer.loss_scale + 1e-6) / self.optimizer.clip_grad)
        if scale != 1:
            for gradient in grad_groups_flat:
                gradient.mul_(1 / scale)

    def _global_norm(self) -> float:
        """One all-reduce and the one time in a step that the host waits for the device."""
        from deepspeed import comm

        groups = [self.optimizer.averaged_gradients[i] for i in range(len(self.optimizer.bit16_groups))]
        total = square_sum(gradient for group in groups for gradient in _tensors_of(group)).reshape(1)
        comm.all_reduce(total, op=comm.ReduceOp.SUM, group=self.optimizer.dp_process_group)
        squares = total.item()
        return math.sqrt(squares) if math.isfinite(squares) else math.inf


class PartitionNorms:
    """The norms of the gradients of ZeRO 3, which DeepSpeed goes on with."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer

    def get_norm_groups(self) -> list[Tensor]:
        """The norm of each group's gradients over all ranks, on the device; not finite where one of them is not."""
        from deepspeed import comm

        norms = []
        for i, parameters in enumerate(self.optimizer.fp16_groups):
            total = square_sum(self.optimizer.averaged_gradients[i])
            ranks = self.optimizer._get_param_partition_group(parameters[0])
            comm.all_reduce(total, op=comm.ReduceOp.SUM, group=ranks)
            norms.append(total.sqrt())
        return norms


class FlatGradients:
    """The gradients of `BF16_Optimizer` as the flat buffers that hold them, one a parameter group."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer

    def get_grads_for_norm(self, for_clipping: bool = False) -> Any:
        """As DeepSpeed's: tensors to scale, or those to take the norm of beside those of experts, of which none are."""
        flat = self.optimizer.fp32_groups_actual_gradients_flat
        if for_clipping:
            return list(flat)
        on_cpu = flat[0].device.type == "cpu"
        return [piece for part in flat for piece in (part.split(CPU_PIECE) if on_cpu else [part])], {}


def _tensors_of(group: Any) -> list[Tensor]:
    """Of the gradients of a parameter group, the flat buffer that they are views of, where there is one."""
    flat = getattr(group, "flat_partition", None)
    return list(group) if flat is None else [flat]


def _is_plain(optimizer: Any) -> bool:
    """Whether an optimizer does nothing by its gradients but average them over the ranks, on the device."""
    special = ("cpu_offload", "offload_optimizer", "has_moe_layers", "zenflow", "mpu", "_uses_muon")
    return getattr(optimizer, "compute_grad_norm", True) and not any(getattr(optimizer, name, None) for name in special)


def fingerprint(optimizer_class: type) -> str:
    """The first digits of the SHA-256 of the methods' source; empty where there is no source to read."""
    try:
        text = "".join(inspect.getsource(function) for function in _methods(optimizer_class))
    except (OSError, TypeError, AttributeError):
        return ""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def _methods(optimizer_class: type) -> list[Callable[..., Any]]:
    """What is replaced, what calls that, and what it called."""
    from deepspeed.runtime import utils

    if optimizer_class.__name__ == "BF16_Optimizer":
        functions = [utils.get_global_norm_of_tensors, utils.clip_tensors_by_global_norm]
        return [*functions, *(getattr(optimizer_class, name) for name in ("step", "get_grads_for_norm"))]
    if optimizer_class.__name__ == "DeepSpeedZeroOptimizer_Stage3":
        names = "step _get_norm_groups get_grad_norm_direct _get_param_partition_group _grad_norm_counts_every_rank"
        return [utils.combine_grad_norm_groups, *(getattr(optimizer_class, name) for name in names.split())]
    names = (
        "step check_overflow _check_overflow has_overflow has_overflow_partitioned_grads_serial scaled_global_norm "
        "get_grad_norm_direct unscale_and_clip_grads"
    )
    return [utils.has_inf_or_nan, *(getattr(optimizer_class, name) for name in names.split())]
