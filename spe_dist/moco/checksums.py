"""Comparing tensors over ranks without sending them: one 64-bit checksum a tensor, computed where the tensor lives.

The checksum is the sum of the tensor's bit patterns, each times an odd number that depends on its place, modulo 2^64.
An odd factor loses no bit, so a single flipped bit always changes the sum; exchanged places do too, bar accidents.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from spe_dist.errors import DivergenceError
from spe_dist.moco.encoder import Collectives

INTEGERS_BY_BYTES = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
COLUMN_FACTOR = 0x1E3779B97F4A7C15
ROW_FACTOR = 0x3F58476D1CE4E5B9
ROW_NUMEL_CPU = 1 << 15  # checksummed at once: the widened copy stays in cache
ROW_NUMEL_GPU = 1 << 23


@torch.no_grad()
def checksum(tensor: Tensor) -> Tensor:
    """The 0-dim int64 checksum of a tensor's bits, on its device; independent of its strides."""
    bits = tensor.detach().contiguous().view(-1).view(INTEGERS_BY_BYTES[tensor.element_size()])
    row_numel = ROW_NUMEL_CPU if bits.device.type == "cpu" else ROW_NUMEL_GPU
    factors = _odd_factors(min(row_numel, bits.numel()), COLUMN_FACTOR, bits.device)
    sums = [(row * factors[: row.numel()]).sum() for row in bits.split(row_numel)]
    if not sums:
        return torch.zeros((), dtype=torch.int64, device=bits.device)
    return (torch.stack(sums) * _odd_factors(len(sums), ROW_FACTOR, bits.device)).sum()


@torch.no_grad()
def row_checksums(tensor_NC: Tensor) -> Tensor:
    """The int64 checksum of each row's bits, [N]."""
    bits_NC = tensor_NC.detach().contiguous().view(INTEGERS_BY_BYTES[tensor_NC.element_size()])
    return (bits_NC * _odd_factors(bits_NC.shape[1], COLUMN_FACTOR, bits_NC.device)).sum(dim=1)


def _odd_factors(count: int, factor: int, device: torch.device) -> Tensor:
    return (torch.arange(1, count + 1, device=device) * factor).bitwise_or_(1)


def checksums(named_tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Name -> type, shape and checksum of each tensor as text; equal texts mean equal bits."""
    if not named_tensors:
        return {}
    sums = torch.stack([checksum(tensor) for tensor in named_tensors.values()]).tolist()
    return {
        name: f"{tensor.dtype}{list(tensor.shape)}:{total & (1 << 64) - 1:016x}"
        for (name, tensor), total in zip(named_tensors.items(), sums, strict=True)
    }


def check_equal(collectives: Collectives, named_tensors: Mapping[str, Tensor]) -> None:
    """Raise DivergenceError on all ranks, naming tensors and ranks, unless all hold the same bits; a collective."""
    prints: list[dict[str, str]] = collectives.all_gather_object(checksums(named_tensors))
    names = dict.fromkeys(name for rank_prints in prints for name in rank_prints)
    differing = {name: _ranks_by_value([p.get(name, "absent") for p in prints]) for name in names}
    differing = {name: groups for name, groups in differing.items() if len(groups) > 1}
    if differing:
        shown = "; ".join(f"{name} ({_describe(groups)})" for name, groups in list(differing.items())[:5])
        more = f" and {len(differing) - 5} more" if len(differing) > 5 else ""
        raise DivergenceError(
            f"{len(differing)} of {len(names)} tensors differ between ranks: {shown}{more}; the ranks no longer train "
            "the same model, so resume from the newest checkpoint and check the machines of the ranks named"
        )


def _ranks_by_value(values: list[str]) -> list[list[int]]:
    """Ranks grouped by what they hold, the largest group first."""
    groups: dict[str, list[int]] = {}
    for rank, value in enumerate(values):
        groups.setdefault(value, []).append(rank)
    return sorted(groups.values(), key=len, reverse=True)


def _describe(groups: list[list[int]]) -> str:
    def ranks(group: list[int]) -> str:
        return f"rank{'s' if len(group) > 1 else ''} {', '.join(map(str, group))}"

    return " against ".join(ranks(group) for group in groups)
