"""What killed runs have left on the machine is known by no process using it any more."""

import os
import subprocess
import sys
import time

import pytest

from spe_dist.utils import leftovers
from spe_dist.utils.leftovers import YOUNG_S, remove_leftovers, unused_buffers, unused_launcher_folders


def old_folder(path):
    path.mkdir()
    os.utime(path, (time.time() - 2 * YOUNG_S,) * 2)
    return path


@pytest.fixture
def sleeper():
    """Starts a process with these variables, which waits for its end."""
    started = []

    def start(**variables):
        code = "print(flush=True); input()"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        started.append(subprocess.Popen([sys.executable, "-c", code], env=os.environ | variables, **pipes))
        started[-1].stdout.readline()
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_launchers_folder_is_left_over_when_none_of_its_ranks_runs(tmp_path, sleeper):
    used, unused = (old_folder(tmp_path / f"torchelastic_{name}") for name in ("used", "unused"))
    (tmp_path / "torchelastic_young").mkdir()
    (tmp_path / "other").mkdir()
    rank = sleeper(TORCHELASTIC_ERROR_FILE=str(used / "attempt_0" / "error.json"))
    assert unused_launcher_folders(tmp_path) == [unused]
    rank.kill()
    rank.wait()
    assert unused_launcher_folders(tmp_path) == [unused, used]


def test_leftovers_are_removed_and_nothing_else(tmp_path, monkeypatch):
    memory, temporary = tmp_path / "memory", tmp_path / "temporary"
    memory.mkdir()
    temporary.mkdir()
    used, unused, other = (memory / name for name in (*(f"deepspeed_allreduce_buffer_0_{i}" for i in "01"), "other"))
    for file in (used, unused, other):
        file.write_text("x")
    folder = old_folder(temporary / "torchelastic_unused")
    monkeypatch.setattr(leftovers, "SHARED_MEMORY", memory)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    with used.open():
        assert unused_buffers(memory) == [unused]
        remove_leftovers()
    assert sorted(memory.iterdir()) == [used, other] and not folder.exists()
