"""The C library's allocator, told to keep what is freed.

glibc gives every block above some 30 MB, and the top of its heap, back to the kernel as soon as it is freed. A step on
a CPU frees and asks for the same gigabyte again and again, and the kernel then clears each page once more: a tenth of
the time of a step of a small encoder, where the table of word embeddings is most of the weights. Kept memory makes the
process larger by what lies between the blocks, its peak stays what it was.
"""

from __future__ import annotations

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h
ENVIRONMENT = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_")


def keep_freed_memory() -> bool:
    """Whether glibc was told so; call it before the first large tensor. What the user set by environment stays."""
    if not sys.platform.startswith("linux") or any(name in os.environ for name in ENVIRONMENT):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
