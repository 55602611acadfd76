"""Bytes from behind a URL: ranges and whole files, bounded in size and time, with further attempts where they help."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest
from project import ROOT

from spe_dist.data.shards import remote, transport
from spe_dist.data.shards.transport import NoRanges, read_range, read_url, with_attempts
from spe_dist.errors import DataError


class Endless(BaseHTTPRequestHandler):
    """Answers every request, for a range too, with bytes that never end: as fast as they are read, or one by one."""

    pause_s = 0.0

    def do_GET(self):
        asked = self.headers.get("Range")
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", asked.replace("=", " ") + "/*")
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
    monkeypatch.setattr(transport, "FIRST_PAUSE_S", 0.005)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


class Elsewhere(BaseHTTPRequestHandler):
    """Sends whoever asks for /ftp to ftp, for /here to a file of its own."""

    def do_GET(self):
        to = {"/ftp": "ftp://127.0.0.1:9/x", "/file": "file:///etc/passwd", "/here": "/there"}.get(self.path)
        self.send_response(302 if to else 200)
        if to:
            self.send_header("Location", to)
        self.end_headers()
        if not to:
            self.wfile.write(b"there")

    def log_message(self, *_):
        pass


def test_a_server_leads_to_other_addresses_of_http_alone():
    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        assert read_url(f"{url}/here") == b"there"
        for scheme in ("ftp", "file"):
            with pytest.raises(DataError, match=f"the server answered 302 .*{scheme}:"):
                read_url(f"{url}/{scheme}")
        server.shutdown()
    secure = urllib.request.Request("https://host/x")
    with pytest.raises(urllib.error.HTTPError, match="http://, which is not followed"):
        transport._StaysHttp().redirect_request(secure, None, 302, "Found", {}, "http://host/x")


def test_importing_it_is_cheap():
    program = "import sys, spe_dist.data.shards.transport; print({'fsspec', 'torch', 'webdataset'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_ranges_of_http_and_of_other_file_systems_are_the_same_bytes(server, shards):
    data = (shards / "train-00000.tar").read_bytes()
    memory = fsspec.filesystem("memory")
    memory.pipe("/transport/train-00000.tar", data)
    for url in (f"{server.url}/train-00000.tar", "memory://transport/train-00000.tar"):
        assert read_range(url, 512, 1_000) == data[512:1_512]
        assert read_range(url, len(data) - 10, 50) == data[-10:]
        assert read_url(url) == data
    assert "train-00000.tar@512" in server.requests


def test_a_server_that_ignores_ranges_is_left_before_it_sends_the_file(server):
    server.has_ranges = False
    with pytest.raises(NoRanges):
        read_range(f"{server.url}/train-00000.tar", 512, 10)


def test_a_server_that_sends_another_range_is_an_error_at_once(server, monkeypatch):
    monkeypatch.setattr(transport, "_request", lambda url: transport.urllib.request.Request(f"{url}?"))
    url = f"{server.url}/train-00000.tar"
    real = transport.urllib.request.Request.add_header
    monkeypatch.setattr(
        transport.urllib.request.Request, "add_header", lambda self, name, _: real(self, name, "bytes=0-9")
    )
    with pytest.raises(DataError, match=r"asked for bytes from 512 on and sends 'bytes 0-9"):
        with_attempts(url, lambda: read_range(url, 512, 10))
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_what_may_be_better_later_is_tried_again(server, shards, status):
    server.failures["manifest.json"] = [status, status]
    assert read_url(f"{server.url}/manifest.json") == (shards / "manifest.json").read_bytes()
    assert server.requests.count("manifest.json") == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 416])
def test_what_stays_is_an_error_at_once(server, status):
    server.failures["manifest.json"] = [status]
    with pytest.raises(DataError, match=rf"manifest\.json cannot be fetched: the server answered {status}"):
        read_url(f"{server.url}/manifest.json")
    assert server.requests.count("manifest.json") == 1


def test_a_server_that_does_not_answer_is_an_error_after_some_attempts(monkeypatch):
    monkeypatch.setattr(transport, "FIRST_PAUSE_S", 0.01)
    with pytest.raises(DataError, match=r"127\.0\.0\.1:9/.*4 attempts"):
        read_url("http://127.0.0.1:9/shards/manifest.json")


def test_a_server_that_accepts_and_says_nothing_is_left_after_the_time_limit(server):
    server.latency_s = 5.0
    began = time.monotonic()
    with pytest.raises(OSError, match="timed out"):
        read_range(f"{server.url}/train-00000.tar", 0, 10, timeout_s=0.2)
    assert time.monotonic() - began < 3


def test_a_server_that_sends_more_than_was_announced_is_left_at_once(endless, tmp_path):
    target = tmp_path / "train-00000.tar"
    with pytest.raises(DataError, match=r"sends more than the 358,000 bytes"):
        remote.fetch_file(f"{endless}/train-00000.tar", target, 64 * "0", 358_000)
    with pytest.raises(DataError, match=r"manifest\.json sends more than"):
        read_url(f"{endless}/manifest.json", 1 << 20)
    url = f"{endless}/train-00000.tar"
    with pytest.raises(DataError, match=r"train-00000\.tar sends more than the 80,000 bytes"):
        with_attempts(url, lambda: read_range(url, 512, 80_000))
    assert not target.exists() and not list(tmp_path.glob(".*.writing"))


def test_a_server_that_sends_byte_by_byte_is_left_after_the_time_limit(endless, monkeypatch):
    monkeypatch.setattr(Endless, "pause_s", 0.02)
    began = time.monotonic()
    with pytest.raises(DataError, match=r"cannot be fetched \(4 attempts\): only \d+ bytes arrived"):
        read_url(f"{endless}/manifest.json", timeout_s=0.2)
    with pytest.raises(OSError, match=r"only \d+ bytes arrived"):
        read_range(f"{endless}/train-00000.tar", 0, 80_000, timeout_s=0.2)
    assert time.monotonic() - began < 15


def test_a_file_system_that_hangs_or_fails_in_its_own_way_is_an_error(monkeypatch):
    class Strange(Exception):
        pass

    class System:
        def cat_file(self, path, start, end):
            if path == "hangs":
                time.sleep(5)
            raise Strange("no credentials")

    monkeypatch.setattr(transport, "file_system", lambda url: (System(), url.rpartition("/")[2]))
    monkeypatch.setattr(transport, "SLOWEST_BYTES_PER_S", 10**9)
    with pytest.raises(OSError, match="no answer"):
        read_range("s3://bucket/hangs", 0, 10, timeout_s=0.1)
    with pytest.raises(OSError, match="Strange: no credentials"):
        read_range("s3://bucket/fails", 0, 10)


def test_a_scheme_that_needs_a_package_or_that_nobody_knows_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    fsspec.filesystem("memory")
    fsspec.registry._registry.pop("s3", None) if hasattr(fsspec.registry, "_registry") else None
    with pytest.raises(DataError, match=r's3://bucket/m cannot be opened.*pip install "spe-dist\[s3\]"'):
        read_url("s3://bucket/m")
    with pytest.raises(DataError, match=r"nowhere://bucket/m cannot be opened.*give a folder, or a URL"):
        read_url("nowhere://bucket/m")


def test_a_pipe_that_fails_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(transport, "FIRST_PAUSE_S", 0.005)
    with pytest.raises(DataError, match=r"manifest\.json"):
        read_url(f"pipe:cat {tmp_path}/nowhere/manifest.json 2>/dev/null")


def test_a_server_whose_answer_never_begins_is_left_though_it_keeps_sending(endless, monkeypatch):
    """The head comes byte by byte, each in time for the socket's own limit."""

    def drip(self):
        with suppress(OSError):
            for byte in b"HTTP/1.0 200 OK\r\nX-Long: " + 1_000 * b"x":
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(0.02)

    monkeypatch.setattr(Endless, "do_GET", drip)
    began = time.monotonic()
    with pytest.raises(DataError, match=r"cannot be fetched \(4 attempts\): no answer within"):
        read_url(f"{endless}/manifest.json", timeout_s=0.3)
    assert time.monotonic() - began < 10
