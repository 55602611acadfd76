import torch
import torch.nn.functional as F


class FusedLayerNorm(torch.nn.Module):
    def __init__(self, normalized_shape, eps=1e-5, elementwise_affine=True, memory_efficient=False):
        super().__init__()
        self.normalized_shape = torch.Size(
            [normalized_shape] if isinstance(normalized_shape, int) else normalized_shape
        )
        self.eps, self.elementwise_affine, self.memory_efficient = eps, elementwise_affine, memory_efficient
        self.weight = torch.nn.Parameter(torch.ones(self.normalized_shape)) if elementwise_affine else None
        self.bias = torch.nn.Parameter(torch.zeros(self.normalized_shape)) if elementwise_affine else None

    def forward(self, input):
        tensors, kind = (input, self.weight, self.bias), input.device.type
        if torch.is_autocast_enabled(kind):  # as apex has it: the type of autocast, not float32
            tensors = [tensor.to(torch.get_autocast_dtype(kind)) for tensor in tensors]
        with torch.autocast(kind, enabled=False):
            return F.layer_norm(tensors[0], self.normalized_shape, *tensors[1:], self.eps)
