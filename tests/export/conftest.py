"""Fixtures of the export tests: checkpoints of the predecessor, its computation restated, and checkpoints of ours."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def predecessor():
    import predecessor_reference

    return predecessor_reference


@pytest.fixture(scope="session")
def checkpoints():
    import checkpoint_maker

    return checkpoint_maker
