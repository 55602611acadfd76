"""Fixtures of the export tests: checkpoints of the predecessor, its computation restated, and checkpoints of ours."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _neighbour(name: str):
    """A helper module of this folder, imported by path: test folders are no packages."""
    full_name = f"export_tests_{name}"
    if full_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(full_name, Path(__file__).with_name(f"{name}.py"))
        module = importlib.util.module_from_spec(spec)
        sys.modules[full_name] = module
        spec.loader.exec_module(module)
    return sys.modules[full_name]


@pytest.fixture(scope="session")
def predecessor():
    return _neighbour("predecessor_reference")


@pytest.fixture(scope="session")
def checkpoints():
    return _neighbour("checkpoint_maker")
