"""Sound files of every kind, small ones, for the fuzzing of readers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.data.conftest import random_shards  # noqa: F401 - a fixture


@pytest.fixture(scope="session")
def predecessor_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the predecessor's code with random weights."""
    from predecessor_reference import Sizes, random_checkpoint

    path = tmp_path_factory.mktemp("predecessor") / "checkpoint.pt"
    torch.save(random_checkpoint(Sizes()), path)
    return path


@pytest.fixture(scope="session")
def made_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pre-training run with one small checkpoint."""
    from checkpoint_maker import make_checkpoint

    return make_checkpoint(tmp_path_factory.mktemp("made") / "run").run
