"""Matrix products in a chosen type, with sums and results in float32 whatever the process has set for others.

| type | factors are rounded to | on a GPU |
|---|---|---|
| float32 | nothing | true float32 |
| tf32 | 11 significant bits | tensor cores, from Ampere on; earlier ones multiply in float32 |
| float16 | 11 significant bits, range to 65,504 | tensor cores, float32 sums |
| bfloat16 | 8 significant bits | tensor cores, float32 sums |

A CPU rounds the factors alike and multiplies in float32: it is not faster, and shows what the rounding does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

ProductType = Literal["float32", "tf32", "bfloat16", "float16"]

TF32_DROPPED_BITS = 13


def product_type(setting: ProductType | Literal["auto"], device: torch.device) -> ProductType:
    """The type that `setting` stands for on a device; "auto" is float32 on a CPU, TF32 elsewhere."""
    if setting != "auto":
        return setting
    return "float32" if device.type == "cpu" else "tf32"


def product(a_MN: Tensor, b_NK: Tensor, kind: ProductType) -> Tensor:
    """a @ b in float32 (float64 where the factors are float64 and `kind` is float32), without a gradient."""
    a_MN, b_NK = as_factor(a_MN, kind), as_factor(b_NK, kind)
    if a_MN.dtype in (torch.bfloat16, torch.float16):
        return torch.mm(a_MN, b_NK, out_dtype=torch.float32)
    with _matmul_precision("tf32" if kind == "tf32" else "ieee"):
        return torch.mm(a_MN, b_NK)


def add_product(sum_MK: Tensor, a_MN: Tensor, b_NK: Tensor, kind: ProductType) -> None:
    """sum += a @ b in place, like `product`; the sum is float32 (or float64)."""
    a_MN, b_NK = as_factor(a_MN, kind), as_factor(b_NK, kind)
    if a_MN.dtype in (torch.bfloat16, torch.float16):
        sum_MK += torch.mm(a_MN, b_NK, out_dtype=torch.float32)
        return
    with _matmul_precision("tf32" if kind == "tf32" else "ieee"):
        torch.addmm(sum_MK, a_MN, b_NK, out=sum_MK)  # whose operations torch counts, unlike addmm_'s


def as_factor(tensor: Tensor, kind: ProductType) -> Tensor:
    """What `product` makes of a factor first; given that, it does it no second time."""
    if kind in ("bfloat16", "float16") and tensor.device.type != "cpu":
        return tensor.to(getattr(torch, kind))
    if tensor.dtype != torch.float64:
        tensor = tensor.float()
    return rounded(tensor, kind) if tensor.device.type == "cpu" else tensor


def rounded(tensor: Tensor, kind: ProductType) -> Tensor:
    """A float32 tensor with the bits that the type keeps, ties to even."""
    if kind == "float32":
        return tensor
    if kind != "tf32":
        return tensor.to(getattr(torch, kind)).float()
    bits = tensor.contiguous().view(torch.int32)
    half = (1 << TF32_DROPPED_BITS - 1) - 1
    bits = bits + half + (bits >> TF32_DROPPED_BITS & 1)
    return (bits & -(1 << TF32_DROPPED_BITS)).view(torch.float32)


@contextlib.contextmanager
def _matmul_precision(precision: str) -> Iterator[None]:
    """How CUDA multiplies float32, for the products inside alone."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    if before == precision:
        yield
        return
    matmul.fp32_precision = precision
    try:
        yield
    finally:
        matmul.fp32_precision = before
