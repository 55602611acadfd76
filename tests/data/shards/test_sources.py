"""Shards behind URLs: blocks by range or whole shards, through a shared cache, always against the manifest."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import pickle
import threading
import time
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from blocks import flip_byte, same_blocks
from old_shards import make_old

from spe_dist.data.shards import transport
from spe_dist.data.shards.cache import FileCache
from spe_dist.data.shards.manifest import Manifest
from spe_dist.data.shards.remote import cache_root, file_url, local_folder
from spe_dist.data.shards.store import ShardStore
from spe_dist.errors import DataError


def of_shard(requests: list[str], name: str = "train") -> list[str]:
    return [request for request in requests if request.startswith(name)]


def open_cached(server, tmp_path, **more) -> ShardStore:
    return ShardStore.open(server.url, cache_dir=str(tmp_path / "cache"), **more)


def wait_for(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


def test_blocks_behind_http_are_read_by_range_once_and_equal_the_local_ones(server, shards, tmp_path):
    local = ShardStore.open(str(shards))
    for _ in range(2):
        store = open_cached(server, tmp_path)
        assert store.has_ranges() and store.manifest == local.manifest and same_blocks(store, local)
        assert (store.tokenizer_folder() / "vocab.txt").read_bytes() == (shards / "tokenizer/vocab.txt").read_bytes()
    assert sorted(of_shard(server.requests)) == sorted(
        f"{shard.name}@{entry.offset}" for shard in local.manifest.shards("train") for entry in shard.blocks
    )
    assert server.requests.count("blocks.npy") == server.requests.count("tokenizer/vocab.txt") == 1


def test_a_block_costs_its_own_bytes(server, tmp_path):
    store = open_cached(server, tmp_path)
    before = server.body_bytes
    for index in range(5):
        store.block(index)
    used = sum(entry.bytes for shard in store.manifest.shards("train") for entry in shard.blocks)
    assert server.body_bytes - before == used


def test_all_ranks_of_a_node_fetch_a_block_once(server, tmp_path):
    server.latency_s = 0.05
    stores = [open_cached(server, tmp_path) for _ in range(6)]
    threads = [threading.Thread(target=store.block, args=(0,)) for store in stores]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=pickle.loads(pickle.dumps(store)).block, args=(0,)) for store in stores[:3]]
    for worker in [*processes, *threads]:
        worker.start()
    for worker in [*processes, *threads]:
        worker.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert of_shard(server.requests) == ["train-00000.tar@512"]


def test_blocks_are_fetched_in_the_background(server, tmp_path):
    store = open_cached(server, tmp_path)
    store.prefetch([3, 4, 3])
    wait_for(lambda: all(store.files.cache.path(e.sha256).is_file() for e in store.manifest.shards("train")[1].blocks))
    requests = list(server.requests)
    assert store.block(3).n_sentences == 100 and store.block(4).n_sentences == 30 and server.requests == requests
    server.failures["train-00000.tar"] = 20 * [404]
    store.prefetch([0])
    with pytest.raises(DataError, match="404"):
        store.block(0)


def test_a_damaged_block_in_the_cache_is_fetched_again(server, tmp_path):
    store = open_cached(server, tmp_path)
    first = store.block(0)
    file = store.files.cache.path(store.manifest.shards("train")[0].blocks[0].sha256)
    for damage in (lambda: flip_byte(file, 100), lambda: os.truncate(file, 700)):
        damage()
        assert (store.block(0).piece_ids_T == first.piece_ids_T).all()
    assert of_shard(server.requests).count("train-00000.tar@512") == 3


def test_a_block_that_is_damaged_or_cut_at_its_source_is_an_error_that_names_it(server, shards, tmp_path):
    store = open_cached(server, tmp_path)
    flip_byte(shards / "train-00001.tar", 600)
    with pytest.raises(
        DataError, match=r"train-00001\.tar cannot be fetched \(7 attempts\): block 00000003.npz is dama"
    ):
        store.block(3)
    os.truncate(shards / "train-00000.tar", 5_000)
    with pytest.raises(DataError, match=r"train-00000\.tar cannot be fetched .*block 00000000.npz is cut short"):
        store.block(0)
    with pytest.raises(DataError, match=r"train-00000\.tar cannot be fetched: the server answered 416"):
        store.block(1)
    assert not [path for path in (tmp_path / "cache" / "files").glob("??/*")]


def test_a_server_that_fails_for_a_while_is_waited_for(server, tmp_path):
    store = open_cached(server, tmp_path)
    server.failures["train-00000.tar"] = [503, 500, 429]
    assert store.block(0).n_sentences == 100
    assert len(of_shard(server.requests)) == 4


def test_a_cache_that_cannot_be_written_or_that_forgets_at_once_ends_no_run(server, shards, tmp_path, monkeypatch):
    store, local = open_cached(server, tmp_path), ShardStore.open(str(shards))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(FileCache, "_count", full)
        assert same_blocks(store, local)
    monkeypatch.setattr(FileCache, "read", lambda *_: None)
    assert same_blocks(store, local)


def test_the_cache_stays_within_its_limit_and_training_goes_on(server, shards, tmp_path):
    store = open_cached(server, tmp_path, cache_gib=20_000 / 2**30)
    for _ in range(3):
        assert same_blocks(store, ShardStore.open(str(shards)))
        assert store.files.cache.used_bytes() <= 20_000


@pytest.mark.parametrize("reason", ["no ranges", "old manifest"])
def test_without_ranges_or_checksums_of_blocks_whole_shards_are_fetched_once(server, shards, tmp_path, reason):
    local = ShardStore.open(str(shards))
    if reason == "old manifest":
        make_old(shards)
    else:
        server.has_ranges = False
    for _ in range(2):
        store = open_cached(server, tmp_path)
        assert same_blocks(store, local) and not store.has_ranges() and store.lookahead_sentences == 135
    assert of_shard(server.requests).count("train-00001.tar") == 1
    assert store.verify().ok and server.requests.count("held_out-00000.tar") == 1


def test_a_shard_is_fetched_in_the_background_too(server, tmp_path):
    server.has_ranges = False
    store = open_cached(server, tmp_path)
    assert not store.has_ranges()
    store.prefetch([4, 3])
    wait_for(lambda: store.files.cache.path(store.manifest.shards("train")[1].sha256).is_file())
    requests = list(server.requests)
    assert store.block(3).n_sentences == 100 and server.requests == requests


def test_a_damaged_or_removed_shard_in_the_cache_is_fetched_again(server, tmp_path):
    server.has_ranges = False
    store = open_cached(server, tmp_path)
    store.block(0)
    shard = store.manifest.shards("train")[0]
    file = store.files.cache.path(shard.sha256)
    count = len(of_shard(server.requests))
    for again, damage in enumerate(
        (lambda: flip_byte(file, shard.blocks[0].offset + 9), lambda: os.truncate(file, 700), file.unlink), 1
    ):
        damage()
        assert store.block(0).n_sentences == 100 and len(of_shard(server.requests)) == count + again


def test_a_shard_that_is_missing_or_damaged_at_its_source_is_an_error_that_names_it(server, shards, tmp_path):
    server.has_ranges = False
    store = open_cached(server, tmp_path)
    assert not store.has_ranges()
    (shards / "train-00000.tar").unlink()
    with pytest.raises(DataError, match=r"train-00000\.tar cannot be fetched.*404"):
        store.block(0)
    flip_byte(shards / "train-00001.tar", 600)
    with pytest.raises(DataError, match=r"train-00001\.tar cannot be fetched \(7 attempts\).*checksum"):
        store.block(3)
    assert server.requests.count("train-00001.tar") == 7 and not list((tmp_path / "cache" / "files").glob("??/*"))
    assert "cannot be fetched" in str(store.verify())
    with pytest.raises(DataError, match=r"manifest\.json cannot be fetched.*404"):
        ShardStore.open(f"{server.url}/elsewhere")


def test_a_shard_larger_than_the_cache_is_an_error_with_the_remedy(server, tmp_path):
    server.has_ranges = False
    store = open_cached(server, tmp_path, cache_gib=20_000 / 2**30)
    with pytest.raises(DataError, match=r"does not fit into a cache.*raise cache_gib"):
        store.block(0)


@pytest.mark.parametrize("page", [b"<html>" + 500 * b"please log in ", b"\x00", b"\xff\xfe", b""])
def test_a_page_in_place_of_the_manifest_is_an_error_that_names_the_url(server, shards, tmp_path, page):
    (shards / "manifest.json").write_bytes(page)
    with pytest.raises(DataError, match=rf"{server.url}/manifest\.json is not a manifest"):
        open_cached(server, tmp_path)


def test_a_damaged_index_in_the_cache_is_fetched_again(server, shards, tmp_path):
    flip_byte(open_cached(server, tmp_path).folder / "blocks.npy", 200)
    assert open_cached(server, tmp_path).manifest == Manifest.load(shards) and server.requests.count("blocks.npy") == 2


@pytest.mark.parametrize("form", ["file://{folder}", "pipe:cat {folder}", "pipe:cat {folder}/{{}}"])
def test_folders_by_url_and_pipes_are_opened(shards, tmp_path, form):
    store = ShardStore.open(form.format(folder=shards), cache_dir=str(tmp_path / "cache"))
    assert same_blocks(store, ShardStore.open(str(shards)))
    assert store.has_ranges() is form.startswith("file")


def test_other_file_systems_are_read_by_range(shards, tmp_path):
    memory = fsspec.filesystem("memory")
    memory.put(str(shards), "/sources", recursive=True)
    store = ShardStore.open("memory://sources", cache_dir=str(tmp_path / "cache"))
    assert store.has_ranges() and same_blocks(store, ShardStore.open(str(shards)))
    held_out = ShardStore.open("memory://sources", "held_out", cache_dir=str(tmp_path / "cache"))
    assert held_out.block(0).n_sentences == 50 and store.verify().ok


def test_names_of_files_behind_a_url(monkeypatch, tmp_path):
    assert file_url("https://host/a b/?token=x", "m.json") == "https://host/a b/m.json?token=x"
    assert file_url("s3://bucket/shards/", "m.json") == "s3://bucket/shards/m.json"
    assert file_url("pipe:ssh host cat x/{}.zst | zstd -d", "m") == "pipe:ssh host cat x/m.zst | zstd -d"
    assert local_folder("file:///a/b") == Path("/a/b") and local_folder("http://a/b") is None
    assert local_folder("a:b/c") == Path("a:b/c")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root(None) == tmp_path / "spe_dist" and cache_root("x") == Path("x")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", os.fspath(tmp_path))
    assert cache_root(None) == tmp_path / ".cache" / "spe_dist"


def test_another_manifest_at_the_same_url_does_not_use_the_old_index(server, shards, tmp_path):
    first = open_cached(server, tmp_path)
    manifest = Manifest.load(shards)
    replace(manifest, tokenizer=replace(manifest.tokenizer, name="other")).save(shards)
    assert open_cached(server, tmp_path).folder != first.folder


@pytest.mark.parametrize("name", ["$(touch X).tar", "`touch X`.tar", "a; touch X"])
def test_a_name_of_a_manifest_never_reaches_a_shell(shards, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(transport, "FIRST_PAUSE_S", 0.005)
    manifest = json.loads((shards / "manifest.json").read_text())
    manifest["splits"]["train"][0]["name"] = name
    (shards / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="names the file"):
        ShardStore.open(f"pipe:cat {shards}/{{}}", cache_dir=str(tmp_path / "cache")).block(0)
    for source in (f"pipe:cat {shards}/{{}}", f"pipe:cat {shards}"):  # quoted besides
        with pytest.raises(DataError, match="cannot be fetched"):
            transport.read_url(file_url(source, name))
    assert not (tmp_path / "X").exists()
