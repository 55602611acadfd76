"""Where the commands of this Python environment are found."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def search_path() -> str:
    """PATH with the folder of this Python's commands (spe, deepspeed, ninja) first."""
    return os.pathsep.join(filter(None, [str(Path(sys.executable).parent), os.environ.get("PATH")]))
