"""The cache of fetched files: bounded, least recently used first out, shared by processes, and safe to kill."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import signal
import threading
import time
from hashlib import sha256
from pathlib import Path

import pytest

from spe_dist.data.shards.cache import FileCache
from spe_dist.errors import DataError


def content(number: int, size: int = 1_000) -> bytes:
    return random.Random(number).randbytes(size)


def name(number: int, size: int = 1_000) -> str:
    return sha256(content(number, size)).hexdigest()


def fill(cache: FileCache, number: int, size: int = 1_000, **more) -> bool:
    return cache.fill(name(number, size), size, lambda file: file.write(content(number, size)), **more)


def test_a_file_is_written_once_and_read_back(tmp_path):
    cache = FileCache(tmp_path, 10_000)
    assert cache.read(name(1)) is None
    assert fill(cache, 1)
    assert cache.fill(name(1), 1_000, lambda file: pytest.fail("it is there"))
    assert cache.read(name(1)) == pickle.loads(pickle.dumps(cache)).read(name(1)) == content(1)
    cache.remove(name(1))
    cache.remove(name(1))
    assert cache.read(name(1)) is None


def test_the_limit_holds_and_what_was_used_longest_ago_goes_first(tmp_path):
    cache = FileCache(tmp_path, 10_000)
    for number in range(40):
        assert fill(cache, number)
        assert cache.used_bytes() <= 10_000
        for kept in (0, number):
            assert cache.read(name(kept)) == content(kept)
        time.sleep(0.002)
    left = [number for number in range(40) if cache.path(name(number)).is_file()]
    assert left[0] == 0 and left[1:] == list(range(left[1], 40)) and len(left) >= 8


def test_files_of_all_sizes_stay_below_the_limit_over_a_lost_or_damaged_count(tmp_path):
    cache, rng = FileCache(tmp_path, 50_000), random.Random(0)
    for number in range(100):
        assert fill(cache, number, rng.randrange(1, 20_000))
        assert cache.used_bytes() <= 50_000
        if number % 7 == 3:
            (tmp_path / "usage").unlink()
        if number % 7 == 6:
            (tmp_path / "usage").write_text("-3 apples")
    with pytest.raises(DataError, match=r"does not fit into a cache .* raise cache_gib"):
        fill(cache, 0, 50_001)


def test_a_write_that_fails_leaves_nothing_and_can_be_repeated(tmp_path):
    cache = FileCache(tmp_path, 10_000)

    def fail(file):
        file.write(b"half")
        raise OSError("no network")

    for _ in range(50):
        with pytest.raises(OSError, match="no network"):
            cache.fill(name(1), 1_000, fail)
    assert cache.used_bytes() == 0 and (tmp_path / "usage").read_text() == "0"
    assert fill(cache, 1) and cache.read(name(1)) == content(1)


def test_while_one_writes_others_wait_or_go_on_without_it(tmp_path):
    cache, started, go_on = FileCache(tmp_path, 10_000), threading.Event(), threading.Event()
    writes = []

    def slow(file):
        writes.append(1)
        started.set()
        go_on.wait(10)
        file.write(content(1))

    threads = [threading.Thread(target=cache.fill, args=(name(1), 1_000, slow, 10.0)) for _ in range(6)]
    for thread in threads:
        thread.start()
    started.wait(10)
    assert fill(cache, 1, wait_s=None) is False and fill(cache, 1, wait_s=0.05) is False
    go_on.set()
    for thread in threads:
        thread.join()
    assert len(writes) == 1 and cache.read(name(1)) == content(1)


def _be_killed_while_writing(folder: Path) -> None:
    def write(file):
        file.write(b"half")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    FileCache(folder, 10_000).fill(name(1), 1_000, write)


def _use(folder: Path, seed: int) -> None:
    cache, rng = FileCache(folder, 30_000), random.Random(seed)
    for _ in range(150):
        number = rng.randrange(60)
        assert cache.fill(name(number), 1_000, lambda file, n=number: file.write(content(n)), 10.0)
        assert cache.read(name(number)) in (content(number), None)


def test_a_killed_writer_blocks_nobody_and_its_rest_is_counted_and_removed(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_be_killed_while_writing, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL and len(list(tmp_path.rglob("*.part"))) == 1
    cache = FileCache(tmp_path, 10_000)
    assert fill(cache, 1) and cache.read(name(1)) == content(1) and not list(tmp_path.rglob("*.part"))
    again = multiprocessing.get_context("fork").Process(target=_be_killed_while_writing, args=(tmp_path / "b",))
    again.start()
    again.join()
    other = FileCache(tmp_path / "b", 10_000)
    for number in range(2, 14):
        fill(other, number)
        assert other.used_bytes() <= 10_000
    assert not list(tmp_path.rglob("*.part"))


def test_processes_share_it_within_the_limit(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_use, args=(tmp_path, seed)) for seed in range(4)]
    for process in processes:
        process.start()
    cache = FileCache(tmp_path, 30_000)
    most = [0]
    while any(process.is_alive() for process in processes):
        cache._count(0, lambda: most.append(cache.used_bytes()))  # nobody else adds or renames meanwhile
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert 0 < max(most) <= 30_000
    files = [path for path in tmp_path.glob("??/*")]
    assert files and all(sha256(path.read_bytes()).hexdigest() == path.name for path in files)
