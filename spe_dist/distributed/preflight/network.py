"""How fast ranks exchange tensors, by size, and how far their clocks are apart."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from spe_dist.distributed.context import RankContext
from spe_dist.distributed.preflight.lines import Line

SIZES_MIB = {"cpu": (0.0625, 1.0, 16.0), "cuda": (0.0625, 1.0, 16.0, 256.0)}
ROUNDS = 3
ENOUGH_S = 2.0  # larger sizes are left out once one round takes as long
SLOW_GB_S = {"cpu": 0.005, "cuda": 1.0}  # with these, exchanges would take most of a step
CLOCK_ROUNDS = 5


def measure_bandwidth(context: RankContext) -> list[Line]:
    """A line for each collective, and one where a sum is wrong. A collective."""
    if context.ranks == 1:
        return [Line("ok", "network", "one rank: nothing is exchanged")]
    operations: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
        "all-reduce": (context.all_reduce_sum, 2 * (context.ranks - 1) / context.ranks),
        "all-gather": (context.all_gather_rows, (context.ranks - 1) / context.ranks),
    }
    return [_measure(context, name, *operation) for name, operation in operations.items()]


def _measure(context: RankContext, name: str, operation: Callable[[Tensor], Tensor], share: float) -> Line:
    """`share`: of the bytes of the result, what each rank sends by a ring."""
    kind = context.device.type
    found, rate = [], 0.0
    for mib in SIZES_MIB[kind]:
        numel = max(1, int(mib * 2**20) // 4)
        numel = numel if name == "all-reduce" else max(1, numel // context.ranks)
        seconds, right = [], True
        for _ in range(ROUNDS):
            sent = torch.full((numel,), float(context.rank + 1), device=context.device)
            context.barrier()
            began = time.monotonic()
            received = operation(sent)
            firsts = received[:1] if name == "all-reduce" else received[::numel]  # of all ranks' parts
            right = right and float(firsts.sum()) == context.ranks * (context.ranks + 1) / 2
            seconds.append(time.monotonic() - began)
        slowest, wrong = context.max_numbers([min(seconds), float(not right)])
        if wrong:
            text = f"{mib:g} MiB arrived damaged: the memory of a rank, its GPU or the network is faulty"
            return Line("problem", name, text)
        rate = mib * 2**20 * share / slowest / 1e9
        found.append(f"{mib:g} MiB {rate:.2f} GB/s")
        if slowest > ENOUGH_S:
            break
    text = ", ".join(found)
    if rate < SLOW_GB_S[kind]:
        interface = "NCCL_SOCKET_IFNAME" if kind == "cuda" else "GLOO_SOCKET_IFNAME"
        return Line("warning", name, f"{text}: slow; is {interface} the fast network's?")
    return Line("ok", name, text)


def clock_offsets(context: RankContext, node: str) -> dict[str, float]:
    """Seconds that each node's clock is ahead of rank 0's, as far as collectives can tell. A collective."""
    best: dict[str, float] = {}
    for _ in range(CLOCK_ROUNDS):
        context.barrier()
        times = context.all_gather_object((node, time.time()))
        for name, moment in times:
            ahead = moment - times[0][1]
            if name not in best or abs(ahead) < abs(best[name]):
                best[name] = ahead
    return best
