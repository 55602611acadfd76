"""DeepSpeed's configs: those that the package brings, by name, and others by path."""

from __future__ import annotations

from pathlib import Path

from spe_dist.errors import ConfigError
from spe_dist.utils.wording import nearest

FOLDER = Path(__file__).resolve().parents[1] / "ds_configs"


def known_deepspeed_configs() -> list[str]:
    """Names of the configs that the package brings."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def find_deepspeed_config(name: str) -> Path:
    """The JSON file of a path, or of the name of one that the package brings.

    Raises:
        ConfigError: where there is neither; it lists the known names.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = known_deepspeed_configs()
    if name.removesuffix(".json") in known:
        return FOLDER / f"{name.removesuffix('.json')}.json"
    what = "is a folder" if path.is_dir() else "does not exist"
    listed = ", ".join(known)
    raise ConfigError(
        f"DeepSpeed config {name} {what}; give a file, or one of the package's: {listed}{nearest(name, known)}"
    )
