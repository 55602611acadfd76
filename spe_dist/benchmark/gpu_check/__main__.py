"""One stage, in the process that the check has started for it."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from pathlib import Path

from spe_dist.benchmark.gpu_check.commands import Task
from spe_dist.benchmark.gpu_check.plan import chosen
from spe_dist.benchmark.gpu_check.record import give


def main() -> int:
    """0 where all of the stage went well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage")
    for name in ("--data", "--work", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--limit", type=float, required=True, metavar="SECONDS")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    (plan,) = chosen([options.stage])
    work = options.work / plan.name
    work.mkdir(parents=True, exist_ok=True)
    try:
        import torch

        on_gpu = torch.cuda.is_available() and os.environ.get("DS_ACCELERATOR") != "cpu"
        task = Task(options.data, work, options.out, options.limit, options.small, on_gpu)
        module, _, name = plan.function.partition(":")
        function = getattr(importlib.import_module(f"spe_dist.benchmark.gpu_check.stages.{module}"), name)
        fine = bool(function(task))
    except Exception as error:
        traceback.print_exc()
        lines = str(error).strip().splitlines() or [""]
        give(plan.name, failed=f"{type(error).__name__}: {lines[0][:300]}")
        fine = False
    sys.stdout.flush()
    os._exit(0 if fine else 1)  # a process group or a profiler that does not end well is nobody's fault here


if __name__ == "__main__":
    main()
