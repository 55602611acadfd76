"""Memory of a process: how its allocators are set, its garbage collector, its peak.

On a CPU each step of training or prediction asks for the large tensors that the last one gave back.

- glibc by itself gives larger tensors and the top of its heap back to the kernel as soon as they are freed, and gets
  pages back that the kernel has cleared. Here what is freed of the heap is kept, and tensors of up to 32 MiB come from
  it. Those above keep mappings of their own: in the heap, hundreds of megabytes that are freed and asked for again find
  their place taken by some small tensor, and it grows for hours. ZeRO stage 3 gathers and frees all weights in every
  step, for which the same holds from a few megabytes on (`map_tensors_of_stage_3`).
- Tensors of 2 MiB and more ask for huge pages, since what is mapped again in every step is cleared page by page.
- One heap serves all threads: those that reduce gradients would have heaps of their own, which glibc unmaps whenever
  they are empty, tens of megabytes several times a step.
- oneDNN keeps the last 1,024 kernels that it has made, for each shape another one, and some are as large as a MiB. They
  lie between freed tensors, so the heap grows. It keeps fewer, which are still several steps' worth.

On any device Python's garbage collector would search all that was imported and loaded again and again, while other
ranks wait for this one.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

HUGE_PAGES_OF_TORCH = "THP_MEM_ALLOC_ENABLE"  # read by torch at the first tensor
KERNELS_OF_ONEDNN = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"  # read by oneDNN at the first kernel
KEPT_KERNELS = 128

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of malloc.h
MAPPED_AT_STAGE_3 = 4 << 20  # bytes
OPTIONS = {
    "MALLOC_ARENA_MAX": (M_ARENA_MAX, 1),
    "MALLOC_MMAP_THRESHOLD_": (M_MMAP_THRESHOLD, 32 << 20),  # the most that mallopt takes for this
    "MALLOC_TRIM_THRESHOLD_": (M_TRIM_THRESHOLD, 2**31 - 1),  # the most that it takes
}


def tune_memory() -> list[str]:
    """Set the allocators of torch, oneDNN and glibc; to be called before threads start and before the first tensor.

    What the user set by environment variables stays. Returns the names of the variables in whose place glibc was set.
    """
    os.environ.setdefault(HUGE_PAGES_OF_TORCH, "1")
    os.environ.setdefault(KERNELS_OF_ONEDNN, str(KEPT_KERNELS))
    return [name for name, (option, size) in OPTIONS.items() if _set_malloc(name, option, size)]


def map_tensors_of_stage_3() -> bool:
    """Give tensors above 4 MiB mappings of their own from here on, unless the user set it; whether that was done.

    Measured with 2 ranks at stage 3, layers of 1,792 x 7,168 in bfloat16: with 32 MiB each step took 0.1 GiB more.
    """
    return _set_malloc("MALLOC_MMAP_THRESHOLD_", M_MMAP_THRESHOLD, MAPPED_AT_STAGE_3)


def release_free_memory() -> None:
    """Give the kernel back what glibc's heap keeps, once: for after a start, which takes other tensors than a step."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def _set_malloc(variable: str, option: int, size: int) -> bool:
    """Set an option of glibc's malloc, unless the user did by its environment variable; whether it was set."""
    if variable in os.environ or not sys.platform.startswith("linux"):
        return False
    try:
        return bool(ctypes.CDLL(None).mallopt(option, size))
    except (OSError, AttributeError):  # another C library
        return False


def freeze_garbage_collector() -> None:
    """Exclude all objects that exist now from garbage collection; for commands, once what they need is loaded."""
    gc.unfreeze()  # of an earlier run in this process
    gc.collect()
    gc.freeze()


def peak_memory_gib(device: torch.device) -> float:
    """Peak so far of allocated GPU memory, or of this process's resident memory on a CPU, in GiB."""
    if device.type == "cuda":
        from torch import cuda

        return cuda.max_memory_allocated(device) / 2**30
    return peak_resident_bytes() / 2**30


def peak_resident_bytes() -> int:
    """The most memory that this process has had.

    The kernel's own figure for it, ru_maxrss, begins with the peak of the program that started this one.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def resident_bytes() -> int:
    """Memory that this process has now; its peak so far where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return peak_resident_bytes()
    return pages * os.sysconf("SC_PAGE_SIZE")
