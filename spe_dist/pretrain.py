"""`spe pretrain` by the path and the module name that launchers start."""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # run by its path: make `spe_dist` importable, and its modules only under that name
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from spe_dist.cli.pretrain import main

if __name__ == "__main__":
    sys.exit(main())
