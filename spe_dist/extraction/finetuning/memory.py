"""Memory of a training process: its peak, and how it is kept small on a CPU."""

from __future__ import annotations

import ctypes
import resource
import sys

import torch

# Of glibc's malloc.h, and values for them in bytes.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
OWN_MAPPING_BYTES = 1 << 20
FREE_TOP_BYTES = 64 << 20


def peak_memory_gib(device: torch.device) -> float:
    """Peak of allocated GPU memory, or of this process's resident memory on a CPU, in GiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def keep_heap_compact() -> None:
    """Have glibc give each large tensor a mapping of its own, returned when it is freed; elsewhere nothing happens.

    By default it takes tensors of up to 32 MiB from one heap. Batches of varied length then leave holes of varied
    sizes between live tensors, and a run grows by half within some hundred steps. Steps do not get slower by it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, OWN_MAPPING_BYTES)
        mallopt(M_TRIM_THRESHOLD, FREE_TOP_BYTES)
