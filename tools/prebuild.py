#!/usr/bin/env python3
"""Compile once what DeepSpeed would compile at the start of the first run on a CPU.

`deepspeed.init_distributed` on a CPU loads an all-reduce through shared memory, compiled on first use (a minute) into
torch's folder of extensions. A process killed meanwhile leaves a lock there at which every later run waits forever, in
silence: one that has gone stale is removed here.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from pathlib import Path

OP = "deepspeed_shm_comm"
STALE_AFTER_S = 180.0


def remove_stale_lock() -> None:
    from torch.utils.cpp_extension import _get_build_directory

    lock = Path(_get_build_directory(OP, False)) / "lock"
    if lock.exists() and time.time() - lock.stat().st_mtime > STALE_AFTER_S:
        print(f"[setup] {lock} is left over from a run that was killed; removed", flush=True)
        lock.unlink(missing_ok=True)


def main() -> int:
    os.environ["DS_ACCELERATOR"] = "cpu"
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    remove_stale_lock()
    start = time.monotonic()
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            from deepspeed.comm.torch import build_shm_op

            build_shm_op()
    except Exception as error:
        print(f"[setup] DeepSpeed's {OP} does not compile here, so runs on several CPU ranks will not start: {error}")
        print("[setup] remedy: a C++ compiler and Python's headers (Debian: apt-get install g++ python3-dev)")
        return 0
    print(f"[setup] DeepSpeed's {OP} is compiled ({time.monotonic() - start:.0f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
