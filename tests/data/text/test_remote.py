"""Texts behind URLs: fetched once, read like other files; commands that never end are ended with their children."""

from __future__ import annotations

import os
import time
from pathlib import Path

import fsspec
import pytest

from spe_dist.data.shards import transport
from spe_dist.data.text import remote
from spe_dist.data.text.remote import is_url, local_inputs
from spe_dist.errors import DataError

FILES = {"a.txt": b"One .\n", "b.jsonl.gz": b"\x1f\x8b", "deep/c.txt": b"Two .\n", "notes.pdf": b"%PDF"}


@pytest.fixture
def store(monkeypatch):
    """memory://texts with FILES."""
    monkeypatch.setattr(transport, "FIRST_PAUSE_S", 0.005)
    memory = fsspec.filesystem("memory")
    for name, data in FILES.items():
        memory.pipe(f"/texts/{name}", data)
    yield memory
    memory.rm("/texts", recursive=True)


def contents(names):
    return [(Path(name).name, Path(name).read_bytes()) for name in names]


def test_a_file_a_folder_and_a_glob_are_fetched_into_the_cache(store, tmp_path):
    told: list[str] = []
    one = local_inputs(["memory://texts/a.txt", "local.txt", "-"], str(tmp_path), tell=told.append)
    assert contents(one.names[:1]) == [("a.txt", FILES["a.txt"])] and one.names[1:] == ["local.txt", "-"]
    assert one.urls == {one.names[0]: "memory:///texts/a.txt"} and "fetching" in told[0]
    folder = local_inputs(["memory://texts"], str(tmp_path))
    assert contents(folder.names) == [
        (Path(name).name, data) for name, data in FILES.items() if not name.endswith(".pdf")
    ]
    pattern = local_inputs(["memory://texts/*.txt"], str(tmp_path))
    assert pattern.names == one.names[:1], "what is in the cache serves any way to name it"


def test_what_is_there_is_not_fetched_again_and_what_has_changed_is(store, tmp_path, monkeypatch):
    version, info, fetched = ["1"], store.info, []
    monkeypatch.setattr(store, "info", lambda path: {**info(path), "ETag": version[0]})
    monkeypatch.setattr(remote, "_download", lambda *args, real=remote._download: (fetched.append(args), real(*args)))
    first, second = (local_inputs(["memory://texts/a.txt"], str(tmp_path)).names for _ in range(2))
    version[0] = "2"
    third = local_inputs(["memory://texts/a.txt"], str(tmp_path)).names
    assert first == second != third and len(fetched) == 2


def test_the_output_of_a_command_is_a_text_that_stays_as_it_was_where_it_is_equal(tmp_path):
    source = tmp_path / "source.txt"
    source.write_text("One .\n")
    (name,) = local_inputs([f"pipe:cat {source}"], str(tmp_path / "cache")).names
    changed = os.stat(name).st_mtime_ns
    time.sleep(0.01)
    assert local_inputs([f"pipe:cat {source}"], str(tmp_path / "cache")).names == [name]
    assert os.stat(name).st_mtime_ns == changed
    source.write_text("Two .\n")
    assert Path(local_inputs([f"pipe:cat {source}"], str(tmp_path / "cache")).names[0]).read_text() == "Two .\n"
    assert [path.suffix for path in Path(name).parent.iterdir() if path.name != "output"] == [".lock"]


def test_a_command_that_never_ends_is_ended_with_its_children(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "DATA_ATTEMPTS", 1)
    pid = tmp_path / "pid"
    command = f"sh -c 'sleep 300 & echo $! > {pid}; wait' & wait"
    with pytest.raises(DataError, match=r"nothing arrived in 0\.3 s; raise fetch_timeout_s"):
        local_inputs([f"pipe:{command}"], str(tmp_path / "cache"), timeout_s=0.3)
    child = int(pid.read_text())
    for _ in range(100):
        if not _runs(child):
            return
        time.sleep(0.05)
    raise AssertionError("the command's child still sleeps")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://texts/none.txt", "none.txt cannot be fetched"),
        ("memory://texts/*.pdf.txt", "names no text file"),
        ("nowhere://bucket/a.txt", "nowhere://bucket/a.txt cannot be opened"),
    ],
)
def test_what_cannot_be_fetched_is_named(store, tmp_path, url, message):
    with pytest.raises(DataError, match=message):
        local_inputs([url], str(tmp_path))


def test_files_and_standard_input_are_no_urls(tmp_path):
    assert not any(map(is_url, ["a.txt", "-", "dir/*.txt", "C:/x", "file:///a.txt"]))
    assert all(map(is_url, ["s3://b/a", "hf://datasets/x/y", "gs://b", "pipe:cat a", "https://host/a.txt"]))
    assert local_inputs([f"file://{tmp_path}"]).names == [str(tmp_path)]
