"""What the base installation lacks: packages of the extra `train` of pyproject.toml."""

from __future__ import annotations

import importlib.util

from spe_dist.errors import ConfigError

TRAIN_EXTRA = ("deepspeed", "webdataset", "tensorboard", "matplotlib", "ninja")
TO_TRAIN = ("deepspeed", "tensorboard", "matplotlib")
TO_MAKE_SHARDS = ("webdataset",)


def require(*packages: str) -> None:
    """Check that packages of the extra are there, before work begins that would miss them at its end.

    Raises:
        ConfigError: for the first one that is missing; it says what to install.
    """
    for name in packages:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(missing(name))


def missing(package: str) -> str:
    """One line on a package that is not installed; empty where it does not belong to the extra."""
    name = package.partition(".")[0]
    return f"this needs {name}, which is not installed; pip install 'spe-dist[train]'" if name in TRAIN_EXTRA else ""
