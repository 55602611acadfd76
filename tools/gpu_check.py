#!/usr/bin/env python3
"""All that a first hour on a GPU must answer, in ten minutes; `docs/gpu.md` says how to run it and what it tells."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from spe_dist.benchmark.gpu_check.check import main

if __name__ == "__main__":
    sys.exit(main())
