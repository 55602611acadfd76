"""Linear layers of a 16-bit encoder for reading alone, with weights laid out as a CPU's matrix products want them.

oneDNN multiplies blocks. Given a plain weight it copies that into blocks in every call; a weight that is never updated
can be copied once, and the product can add the bias and apply GELU while its result is in the cache. torch has both
only behind the operators that its compiler emits; where a torch lacks them, the layers stay as they are.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spe_dist.model.encoder import Layer, PackedBertEncoder

USUAL_TOKENS = 4096  # of a batch: the layout suits such a number of rows best, and any other too


class PrepackedLinear(nn.Module):
    """A linear layer without gradient, then `activation` ("none" or "gelu"); the parameters are the plain layer's."""

    def __init__(self, linear: nn.Linear, activation: str):
        super().__init__()
        self.weight, self.bias, self.activation = linear.weight, linear.bias, activation
        self._blocks = _blocks_of(linear.weight)

    def __getstate__(self) -> dict[str, Any]:
        """Without the blocks, which cannot be copied; a copy makes its own."""
        return {name: value for name, value in vars(self).items() if name != "_blocks"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._blocks = _blocks_of(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        approximation = "none" if self.activation == "gelu" else ""  # GELU itself, not by tanh
        return torch.ops.mkldnn._linear_pointwise(x, self._blocks, self.bias, self.activation, [], approximation)


def _blocks_of(weight: Tensor) -> Tensor:
    blocks: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), USUAL_TOKENS)
    return blocks


def prepack(encoder: PackedBertEncoder) -> bool:
    """Lay out the weights of all layers in place; whether it was done. Afterwards nothing may train or move them."""
    weight = encoder.embeddings.word_embeddings.weight
    if weight.device.type != "cpu" or weight.dtype != torch.bfloat16 or not _has_operators():
        return False
    for layer in encoder.encoder.layer:
        assert isinstance(layer, Layer)
        attention, intermediate = layer.attention.self, layer.intermediate
        fuse = intermediate.activation is F.gelu
        if fuse:
            intermediate.activation = nn.Identity()
        linears = (
            (attention, "query"),
            (attention, "key"),
            (attention, "value"),
            (layer.attention.output, "dense"),
            (intermediate, "dense"),
            (layer.output, "dense"),
        )
        for parent, name in linears:
            activation = "gelu" if fuse and parent is intermediate else "none"
            setattr(parent, name, PrepackedLinear(getattr(parent, name), activation))
    return True


def _has_operators() -> bool:
    operators = ("_is_mkldnn_bf16_supported", "_reorder_linear_weight", "_linear_pointwise")
    if not torch.backends.mkldnn.is_available() or not all(hasattr(torch.ops.mkldnn, name) for name in operators):
        return False
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()
