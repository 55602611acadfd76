"""Memory of a training process."""

from __future__ import annotations

from pathlib import Path

import torch


def memory_gib(device: torch.device) -> float:
    """Peak of allocated GPU memory, or this process's resident memory on a CPU, in GiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return float("nan")
    return pages * 4096 / 2**30
