"""Memory of a training process: its peak, and giving back what is free."""

from __future__ import annotations

import ctypes
import resource
import sys

import torch


def peak_memory_gib(device: torch.device) -> float:
    """Peak of allocated GPU memory, or of this process's resident memory on a CPU, in GiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def return_free_memory() -> None:
    """Give the system the pages that glibc's allocator holds without need; elsewhere nothing happens.

    Batches of varied length leave free blocks of varied sizes between live ones: without this a run on a CPU grows by
    half within some hundred steps.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
