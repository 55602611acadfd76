"""Gradients of ZeRO stage 0, where one rank trains alone and DeepSpeed leaves them as autograd makes them.

An embedding table gets a gradient of few rows in each step. On a CPU, autograd makes it as large as the table, tens of
megabytes that the kernel maps and clears again each time. Here the dense gradient stays, autograd adds the rows to it,
and it is cleared after the step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spe_dist.distributed.gradient_norm import square_sum

LARGE_TABLE = 1 << 20  # elements from which a table's gradient stays


class LocalGradients:
    """Clipping, and gradients of large embedding tables that stay where they are."""

    def __init__(self, module: nn.Module, max_norm: float) -> None:
        """`max_norm`: 0 for no clipping. On a CPU, the module's large embedding tables get sparse gradients."""
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.max_norm = max_norm
        self.norm: Tensor | None = None  # of the last step, before clipping; on the device
        self._tables: list[tuple[Tensor, Tensor]] = []
        for table in module.modules():
            if isinstance(table, nn.Embedding) and _is_large(table.weight):
                table.sparse = True
                self._tables.append((table.weight, torch.zeros_like(table.weight)))
        self._keep_tables()

    def clip(self) -> None:
        """Scale all gradients so that their global norm is at most `max_norm`; keeps the norm before.

        Parameters that nothing was computed from get zeros, as at the other stages.
        """
        for parameter in self.parameters:
            if parameter.grad is None:  # else Adam would count fewer steps for it
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        self.norm = square_sum(gradients).sqrt().float()
        if self.max_norm > 0:
            nn.utils.clip_grads_with_norm_(self.parameters, self.max_norm, self.norm)

    def clear(self) -> None:
        """Zero the gradients that stay; to be called when the engine has let go of all."""
        for _, gradient in self._tables:
            gradient.zero_()
        self._keep_tables()

    def _keep_tables(self) -> None:
        for weight, gradient in self._tables:
            weight.grad = gradient


def _is_large(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.requires_grad and weight.numel() >= LARGE_TABLE
