"""Random access to blocks: locally and behind URLs, always against the manifest; what `verify` finds."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from old_shards import make_old
from project import ROOT

from spe_dist.data.shards import remote
from spe_dist.data.shards.manifest import Manifest
from spe_dist.data.shards.remote import cache_root, file_url, local_folder
from spe_dist.data.shards.store import ShardStore
from spe_dist.errors import DataError


@pytest.fixture
def shards(random_shards, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(random_shards, tmp_path / "shards"))


@pytest.fixture
def served(shards, monkeypatch):
    """(URL of the shards, the requests that it answered)."""
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.01)
    requests: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            requests.append(self.path.lstrip("/"))

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(shards)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", requests
    server.shutdown()
    thread.join()
    server.server_close()


def flip_byte(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


def same_blocks(store: ShardStore, other: ShardStore) -> bool:
    pairs = [(store.block(i), other.block(i)) for i in range(len(store.block_sentences))]
    return all(
        np.array_equal(a.piece_ids_T, b.piece_ids_T) and a.first_sentence_id == b.first_sentence_id for a, b in pairs
    )


def test_blocks_are_read_in_any_order_with_their_sentence_ids(random_shards):
    store = ShardStore.open(str(random_shards))
    assert store.block_sentences.tolist() == [100, 90, 80, 100, 30] and store.n_sentences == 400
    for index, first in ((3, 270), (0, 0), (4, 370), (3, 270)):
        block = store.block(index)
        assert (block.first_sentence_id, block.n_sentences) == (first, store.block_sentences[index])
    held_out = ShardStore.open(str(random_shards), "held_out")
    assert held_out.first_sentence_id == 400 and held_out.block(0).first_sentence_id == 400
    assert store.block_of(270) == (3, 0) and store.block_of(269) == (2, 79) and held_out.block_of(449) == (0, 49)
    with pytest.raises(DataError, match=r"sentence 400 .*0 to 399"):
        store.block_of(400)


def test_a_store_works_after_pickling_and_in_other_processes(random_shards):
    store = ShardStore.open(str(random_shards))
    assert same_blocks(pickle.loads(pickle.dumps(store)), store)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(store.block, (2,)).n_sentences == 80


def test_importing_the_store_is_cheap():
    heavy = "{'torch', 'spacy', 'transformers', 'webdataset'}"
    program = f"import sys, spe_dist.data.shards.store; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_an_unknown_split_and_a_missing_folder_are_errors_with_the_remedy(random_shards, tmp_path):
    with pytest.raises(DataError, match=r"split='test'.*held_out.*train"):
        ShardStore.open(str(random_shards), "test")
    with pytest.raises(DataError, match="spe shards make"):
        ShardStore.open(str(tmp_path))


def test_intact_shards_verify(random_shards):
    store = ShardStore.open(str(random_shards))
    store.check_files()
    report = store.verify()
    assert report.ok, str(report)
    assert (report.shards, report.blocks, report.sentences) == (3, 6, 450) and "webdataset" in str(report)


def test_a_flipped_byte_is_found_by_block_and_by_verify(shards):
    store = ShardStore.open(str(shards))
    entry = store.manifest.splits["train"][1].blocks[0]
    flip_byte(shards / "train-00001.tar", entry.offset + entry.bytes // 2)
    store.check_files()
    with pytest.raises(DataError, match=r"train-00001\.tar, block 00000003\.npz.*checksum.*spe shards verify"):
        store.block(3)
    assert store.block(4).n_sentences == 30
    report = store.verify()
    assert not report.ok and "train-00001.tar, block 00000003.npz" in str(report)


def test_a_flipped_byte_in_a_tar_header_which_webdataset_passes_over_is_found(shards):
    store = ShardStore.open(str(shards))
    flip_byte(shards / "train-00000.tar", store.manifest.splits["train"][0].blocks[1].offset - 512 + 5)
    assert "webdataset yields" in str(store.verify())


def test_a_truncated_tar_is_found(shards):
    store = ShardStore.open(str(shards))
    path = shards / "train-00000.tar"
    path.write_bytes(path.read_bytes()[: store.manifest.splits["train"][0].blocks[2].offset + 100])
    with pytest.raises(DataError, match=r"train-00000\.tar .* bytes instead of"):
        store.check_files()
    with pytest.raises(DataError, match="cut short"):
        store.block(2)
    assert "cut short" in str(store.verify())


def test_a_missing_shard_and_one_too_many_are_found(shards):
    store = ShardStore.open(str(shards))
    (shards / "train-00001.tar").rename(shards / "train-00007.tar")
    for action in (store.check_files, partial(store.block, 4)):
        with pytest.raises(DataError, match=r"train-00001\.tar.*missing"):
            action()
    assert "train-00001.tar: missing" in str(store.verify()) and "train-00007.tar: a shard that" in str(store.verify())


@pytest.mark.parametrize("change", ["added", "removed"])
def test_a_member_too_many_or_too_few_is_found(shards, change):
    path = shards / "train-00000.tar"
    with tarfile.open(path) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar]
    members = members[:-1] if change == "removed" else [*members, (tarfile.TarInfo("00000099.npz"), members[0][1])]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    found = str(ShardStore.open(str(shards)).verify())
    assert ("member 00000002.npz is missing" if change == "removed" else "member 00000099.npz is not in") in found


def test_a_block_of_other_counts_than_the_manifest_says_is_an_error(shards):
    make_old(shards)
    text = (shards / "manifest.json").read_text().replace('"sentences": 90', '"sentences": 91')
    (shards / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"block 00000001\.npz.*manifest says"):
        ShardStore.open(str(shards)).block(1)


def test_shards_behind_http_are_fetched_once_and_equal_the_local_ones(served, shards, tmp_path):
    url, requests = served
    local = ShardStore.open(str(shards))
    for _ in range(2):
        store = ShardStore.open(url, cache_dir=str(tmp_path / "cache"))
        assert store.manifest == local.manifest and same_blocks(store, local)
        assert (store.tokenizer_folder() / "vocab.txt").read_bytes() == (shards / "tokenizer/vocab.txt").read_bytes()
    assert requests.count("manifest.json") == 2
    assert (
        requests.count("train-00000.tar")
        == requests.count("train-00001.tar")
        == requests.count("tokenizer/vocab.txt")
        == 1
    )
    store.check_files()
    assert store.verify().ok and requests.count("held_out-00000.tar") == 1
    assert not list((tmp_path / "cache").rglob("*.writing"))


def test_readers_at_the_same_time_fetch_a_shard_once(served, tmp_path):
    url, requests = served
    stores = [ShardStore.open(url, cache_dir=str(tmp_path)) for _ in range(6)]
    threads = [threading.Thread(target=store.block, args=(0,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert requests.count("train-00000.tar") == 1


def test_a_shard_that_is_missing_or_damaged_at_its_source_is_an_error_that_names_it(served, shards, tmp_path):
    url, requests = served
    store = ShardStore.open(url, cache_dir=str(tmp_path / "cache"))
    (shards / "train-00000.tar").unlink()
    with pytest.raises(DataError, match=r"train-00000\.tar cannot be fetched.*404"):
        store.block(0)
    flip_byte(shards / "train-00001.tar", 600)
    with pytest.raises(DataError, match=r"train-00001\.tar cannot be fetched \(4 attempts\).*checksum"):
        store.block(3)
    assert requests.count("train-00001.tar") == 4 and not list((tmp_path / "cache").rglob("*.tar"))
    assert "cannot be fetched" in str(store.verify())
    with pytest.raises(DataError, match=r"manifest\.json cannot be fetched.*404"):
        ShardStore.open(f"{url}/elsewhere")


@pytest.mark.parametrize("page", [b"<html>" + 500 * b"please log in ", b"\x00", b"\xff\xfe", b""])
def test_a_page_in_place_of_the_manifest_is_an_error_that_names_the_url(served, shards, tmp_path, page):
    (shards / "manifest.json").write_bytes(page)
    with pytest.raises(DataError, match=rf"{served[0]}/manifest\.json is no manifest"):
        ShardStore.open(served[0], cache_dir=str(tmp_path / "cache"))


def test_a_server_that_does_not_answer_is_an_error_after_some_attempts(monkeypatch):
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.01)
    with pytest.raises(DataError, match=r"127\.0\.0\.1:9/.*4 attempts"):
        ShardStore.open("http://127.0.0.1:9/shards")


def test_a_damaged_file_in_the_cache_is_fetched_again(served, shards, tmp_path):
    url, requests = served
    store = ShardStore.open(url, cache_dir=str(tmp_path / "cache"))
    store.block(0)
    flip_byte(store.folder / "train-00000.tar", store.manifest.splits["train"][0].blocks[0].offset + 9)
    assert store.block(0).n_sentences == 100 and requests.count("train-00000.tar") == 2
    os.truncate(store.folder / "train-00000.tar", 700)
    store.check_files()
    assert store.block(0).n_sentences == 100 and requests.count("train-00000.tar") == 3


@pytest.mark.parametrize("form", ["file://{folder}", "pipe:cat {folder}", "pipe:cat {folder}/{{}}"])
def test_other_urls_of_webdataset_are_opened(shards, tmp_path, form):
    store = ShardStore.open(form.format(folder=shards), cache_dir=str(tmp_path / "cache"))
    assert same_blocks(store, ShardStore.open(str(shards)))


def test_a_pipe_that_fails_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.01)
    with pytest.raises(DataError, match=r"manifest\.json"):
        ShardStore.open(f"pipe:cat {tmp_path}/nowhere 2>/dev/null", cache_dir=str(tmp_path))


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


def test_another_manifest_at_the_same_url_does_not_use_the_old_cache(served, shards, tmp_path):
    url, _ = served
    first = ShardStore.open(url, cache_dir=str(tmp_path / "cache"))
    manifest = Manifest.load(shards)
    replace(manifest, tokenizer=replace(manifest.tokenizer, name="other")).save(shards)
    assert ShardStore.open(url, cache_dir=str(tmp_path / "cache")).folder != first.folder


class Endless(SimpleHTTPRequestHandler):
    """Answers every request with bytes that never end: as fast as they are read, or one by one."""

    pause_s = 0.0

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):
            while True:
                self.wfile.write(b"{" if self.pause_s else bytes(1 << 16))
                self.wfile.flush()
                time.sleep(self.pause_s)

    def log_message(self, *_):
        pass


@pytest.fixture
def endless(monkeypatch):
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.01)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_server_that_sends_more_than_the_manifest_says_is_left_at_once(endless, tmp_path):
    target = tmp_path / "train-00000.tar"
    with pytest.raises(DataError, match=r"sends more than the 358,000 bytes"):
        remote.fetch_file(f"{endless}/train-00000.tar", target, 64 * "0", 358_000)
    with pytest.raises(DataError, match=r"manifest\.json sends more than"):
        remote.read_url(f"{endless}/manifest.json", 1 << 20)
    assert not target.exists() and not list(tmp_path.glob(".*.writing"))


def test_a_server_that_sends_byte_by_byte_is_left_after_the_time_limit(endless, monkeypatch):
    monkeypatch.setattr(Endless, "pause_s", 0.02)
    monkeypatch.setattr(remote, "chunks", partial(remote.chunks, timeout_s=0.2))
    began = time.monotonic()
    with pytest.raises(DataError, match=r"cannot be fetched \(4 attempts\): only \d+ bytes arrived"):
        remote.read_url(f"{endless}/manifest.json")
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("name", ["$(touch X).tar", "`touch X`.tar", "a; touch X"])
def test_a_name_of_a_manifest_never_reaches_a_shell(shards, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.01)
    manifest = json.loads((shards / "manifest.json").read_text())
    manifest["splits"]["train"][0]["name"] = name
    (shards / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="names the file"):
        ShardStore.open(f"pipe:cat {shards}/{{}}", cache_dir=str(tmp_path / "cache")).block(0)
    for source in (f"pipe:cat {shards}/{{}}", f"pipe:cat {shards}"):  # quoted besides
        with pytest.raises(DataError, match="cannot be fetched"):
            remote.read_url(file_url(source, name))
    assert not (tmp_path / "X").exists()
