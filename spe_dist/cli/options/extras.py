"""Packages that may be missing: those of the extras of pyproject.toml, and all where Python is another one."""

from __future__ import annotations

import importlib.util
import sys

from spe_dist.errors import ConfigError

TRAIN_EXTRA = ("deepspeed", "fsspec", "webdataset", "tensorboard", "matplotlib", "ninja", "psutil")
CLUSTER_EXTRA = ("datatrove",)
BASE = ("huggingface_hub", "numpy", "safetensors", "spacy", "tokenizers", "torch", "tqdm", "transformers", "zstandard")
TO_TRAIN = ("deepspeed", "tensorboard", "matplotlib")
TO_MAKE_SHARDS = ("webdataset",)
TO_DIVIDE_SHARDS = ("datatrove",)


def require(*packages: str) -> None:
    """Check that packages of the extra are there, before work begins that would miss them at its end.

    Raises:
        ConfigError: for the first one that is missing; it says what to install.
    """
    for name in packages:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(missing(name))


def missing(package: str) -> str:
    """One line on a package that is not installed; empty where it is none of ours."""
    name = package.partition(".")[0]
    if name in TRAIN_EXTRA:
        return f"this needs {name}, which is not installed; pip install 'spe-dist[train]'"
    if name in CLUSTER_EXTRA:
        return f"this needs {name}, which is not installed; pip install 'spe-dist[train,cluster]'"
    if name in BASE:
        return (
            f"{name} is not installed for {sys.executable}; activate the environment of the installation "
            "(source .venv/bin/activate), or pip install spe-dist"
        )
    return ""
