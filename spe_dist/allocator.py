"""The C library's allocator, told what suits training on a CPU: large tensors are freed and asked for in every step.

glibc by itself takes tensors of up to 32 MiB from one heap, gives larger ones and the heap's top back to the kernel as
soon as they are freed, and gets pages back that the kernel has cleared. Two remedies, by what a process does:

- steps of much the same sizes (pre-training, prediction): keep what is freed, which spares the clearing, about a tenth
  of the time of a small encoder;
- steps of varied sizes over large weights (fine-tuning): a mapping of its own for each large tensor. In one heap they
  would leave holes between live tensors, and the process would grow by half within some hundred steps.
"""

from __future__ import annotations

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # of malloc.h
ENVIRONMENT = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_")
OWN_MAPPING_BYTES = 1 << 20
FREE_TOP_BYTES = 64 << 20


def keep_freed_memory() -> bool:
    """Whether glibc was told so; call it before the first large tensor. What the user set by environment stays."""
    return _set({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1})


def keep_heap_compact() -> bool:
    """Whether glibc was told so; call it before the first large tensor. What the user set by environment stays."""
    return _set({M_MMAP_THRESHOLD: OWN_MAPPING_BYTES, M_TRIM_THRESHOLD: FREE_TOP_BYTES})


def _set(options: dict[int, int]) -> bool:
    if not sys.platform.startswith("linux") or any(name in os.environ for name in ENVIRONMENT):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return all(mallopt(name, value) for name, value in options.items())
