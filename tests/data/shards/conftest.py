"""Shards that a test may damage, in a folder and behind a server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from spe_dist.benchmark.data.server import FileServer
from spe_dist.data.shards import transport


@pytest.fixture
def shards(random_shards, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(random_shards, tmp_path / "shards"))


@pytest.fixture
def server(shards, monkeypatch) -> Iterator[FileServer]:
    """A server of these shards that gives ranges; failures are tried again without long pauses."""
    monkeypatch.setattr(transport, "FIRST_PAUSE_S", 0.005)
    server = FileServer(shards)
    server.start()
    yield server
    server.stop()
