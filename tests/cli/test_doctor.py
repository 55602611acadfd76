from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path

import pytest
from project import ROOT

from spe_dist.cli import doctor


@pytest.fixture
def shared_memory(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr(doctor, "SHARED_MEMORY", folder)
    return folder


@pytest.fixture
def extensions(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "extensions"
    (folder / "deepspeed_shm_comm").mkdir(parents=True)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(folder))
    return folder


def make_old(file: Path, seconds: float = 1_000) -> Path:
    file.write_bytes(b"x" * 1_000)
    moment = file.stat().st_mtime - seconds
    os.utime(file, (moment, moment))
    return file


def test_the_supported_versions_are_those_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == doctor.SUPPORTED_PYTHON
    for name, bounds in doctor.SUPPORTED.items():
        assert f"{name}{bounds}" in [*project["dependencies"], *project["optional-dependencies"]["train"]]


def test_a_library_out_of_bounds_or_absent_is_a_problem(monkeypatch):
    def version(name: str) -> str:
        if name == "deepspeed":
            raise doctor.metadata.PackageNotFoundError(name)
        return {"torch": "2.13.0+cpu", "transformers": "4.57.0"}.get(name, "1.0.2")

    monkeypatch.setattr(doctor.metadata, "version", version)
    found = {finding.topic: finding for finding in doctor.versions()}
    assert not found["torch"].remedy and "supported" in found["torch"].text
    assert "4.57.0, not supported (>=5,<6)" in found["transformers"].text and found["transformers"].remedy
    assert found["deepspeed"].text == "not installed, needed to train" and not found["deepspeed"].remedy


def test_an_apex_that_is_not_nvidias_is_a_problem(monkeypatch, tmp_path):
    (tmp_path / "apex.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "apex", None)  # so that what is imported under this name goes with the test
    del sys.modules["apex"]
    (apex,) = [finding for finding in doctor.kernels() if finding.topic == "apex"]
    assert str(tmp_path) in apex.text and "pip uninstall apex" in apex.remedy


def test_unused_shared_memory_is_found_and_removed_but_not_what_a_process_maps_or_holds(shared_memory, extensions):
    import mmap

    unused = make_old(shared_memory / "deepspeed_allreduce_buffer_0_localhost_29500_0")
    held = make_old(shared_memory / "deepspeed_allreduce_buffer_0_localhost_29501_0")
    mapped = make_old(shared_memory / "deepspeed_allreduce_buffer_0_localhost_29502_0")
    other = make_old(shared_memory / "someone_elses")
    with held.open("rb"):
        with mapped.open("r+b") as file:
            memory = mmap.mmap(file.fileno(), 0)
        assert doctor.shared_memory_leftovers() == [unused]
        (finding,) = doctor.leftovers()
        assert "1 unused" in finding.text and "--clean" in finding.remedy
        assert doctor.clean() == [unused]
        memory.close()
    assert not unused.exists() and held.exists() and mapped.exists() and other.exists()


def test_a_lock_is_stale_when_it_is_old_and_nobody_holds_it(shared_memory, extensions):
    lock = extensions / "deepspeed_shm_comm" / "lock"
    lock.touch()
    assert doctor.stale_locks() == []
    make_old(lock)
    with lock.open("rb"):
        assert doctor.stale_locks() == []
    assert doctor.stale_locks() == [lock]
    assert doctor.clean() == [lock] and not lock.exists()
    (finding,) = doctor.leftovers()
    assert finding.topic == "leftovers" and not finding.remedy


def test_a_full_disk_is_a_problem(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "MIN_FREE_GIB", 10**9)
    assert doctor.disks(tmp_path)[0].remedy
    monkeypatch.setattr(doctor, "MIN_FREE_GIB", 0.0)
    assert not doctor.disks(tmp_path)[0].remedy


def test_launcher_variables_that_contradict_each_other_are_something_to_mend():
    assert doctor.launcher({})[0].text == "no launcher variables: single, rank 0 of 1"
    (finding,) = doctor.launcher({"RANK": "1"})
    assert "RANK=1" in finding.text and "WORLD_SIZE" in finding.remedy


def test_the_exit_status_says_whether_there_is_a_problem(monkeypatch, capsys):
    good, bad = doctor.Finding("torch", "fine"), doctor.Finding("long topic", "broken", "mend it")
    monkeypatch.setattr(doctor, "CHECKS", (lambda: [good],))
    assert doctor.main([]) == 0
    assert "no problems" in capsys.readouterr().out
    monkeypatch.setattr(doctor, "CHECKS", (lambda: [good], lambda: [bad]))
    assert doctor.main([]) == 1
    assert "! long topic  broken\n              -> mend it\n" in capsys.readouterr().out


def test_every_check_runs_here():
    topics = [finding.topic for check in doctor.CHECKS for finding in check()]
    assert {"Python", "torch", "CPU", "kernel: attention", "ninja", "launcher"} <= set(topics)
