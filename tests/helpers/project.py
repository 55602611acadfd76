"""Where the project lies, and the material beside it that some tests read where it is there."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
