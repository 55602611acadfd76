#!/usr/bin/env python3
"""Turn a training checkpoint into plain PyTorch: `spe export` under the name by which a checkout has it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from spe_dist.cli.export import main

if __name__ == "__main__":
    sys.exit(main())
