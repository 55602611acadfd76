"""The command on a small model, and a text file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from predicted import TEXT

from spe_dist import predict


@pytest.fixture
def run(extractor_folder, capfdbinary):
    """run(*arguments) -> (exit status, stdout, stderr)"""

    def call(*arguments):
        status = predict.main([str(extractor_folder), *map(str, arguments), "--device", "cpu", "--no-bfloat16"])
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return status, out.decode(), err.decode()

    return call


@pytest.fixture
def text_file(tmp_path) -> Path:
    path = tmp_path / "text.txt"
    path.write_bytes(TEXT.encode())
    return path
