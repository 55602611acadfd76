"""The C library's allocator, told what suits training on a CPU: large tensors are freed and asked for in every step.

glibc by itself takes tensors of up to 32 MiB from one heap, gives larger ones and the heap's top back to the kernel as
soon as they are freed, and gets pages back that the kernel has cleared. Two remedies, by what a process does:

- steps of much the same sizes (pre-training, prediction): keep what is freed of the heap, which spares the clearing,
  about a tenth of the time of a small encoder. Larger tensors keep mappings of their own: in the heap, hundreds of
  megabytes that are freed and asked for again find their place taken by some small tensor, and it grows for hours;
- steps of varied sizes over large weights (fine-tuning): a mapping of its own for each large tensor. In one heap they
  would leave holes between live tensors, and the process would grow by half within some hundred steps.

And for both: tensors of 2 MiB and more ask for huge pages, since what is mapped anew in every step is cleared page by
page; one heap for all threads, since those that reduce gradients would have heaps of their own, which glibc unmaps
whenever they are empty, tens of megabytes several times a step.
"""

from __future__ import annotations

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of malloc.h
ENVIRONMENT = {
    M_TRIM_THRESHOLD: "MALLOC_TRIM_THRESHOLD_",
    M_MMAP_THRESHOLD: "MALLOC_MMAP_THRESHOLD_",
    M_ARENA_MAX: "MALLOC_ARENA_MAX",
}
KEPT_TOP_BYTES = 2**31 - 1  # the most that mallopt takes
LARGEST_IN_HEAP_BYTES = 32 << 20  # the most that it takes for this
OWN_MAPPING_BYTES = 1 << 20
FREE_TOP_BYTES = 64 << 20
HUGE_PAGES_OF_TORCH = "THP_MEM_ALLOC_ENABLE"  # read by torch at the first tensor


def use_huge_pages() -> None:
    """Call it before the first tensor. What the user set by environment stays."""
    os.environ.setdefault(HUGE_PAGES_OF_TORCH, "1")


def share_one_heap() -> bool:
    """Whether glibc was told so; call it before threads start. What the user set by environment stays."""
    return _set({M_ARENA_MAX: 1})


def keep_freed_memory() -> bool:
    """Whether glibc was told so; call it before the first large tensor. What the user set by environment stays."""
    return _set({M_MMAP_THRESHOLD: LARGEST_IN_HEAP_BYTES, M_TRIM_THRESHOLD: KEPT_TOP_BYTES})


def keep_heap_compact() -> bool:
    """Whether glibc was told so; call it before the first large tensor. What the user set by environment stays."""
    return _set({M_MMAP_THRESHOLD: OWN_MAPPING_BYTES, M_TRIM_THRESHOLD: FREE_TOP_BYTES})


def _set(options: dict[int, int]) -> bool:
    if not sys.platform.startswith("linux") or any(ENVIRONMENT[name] in os.environ for name in options):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return all(mallopt(name, value) for name, value in options.items())
