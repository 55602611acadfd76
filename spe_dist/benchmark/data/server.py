"""A distant server of files, on this machine: it answers after a delay, sends at a limited rate, and counts.

`GET /.traffic` answers with what it has sent so far, as JSON. `python -m spe_dist.benchmark.data.server FOLDER` prints
the port that it listens at, and serves until its standard input ends.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CHUNK_BYTES = 1 << 14
TRAFFIC = "/.traffic"
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


class FileServer(ThreadingHTTPServer):
    """Serves the files of a folder at 127.0.0.1, with or without ranges.

    requests: path of each request, with `@start` behind it where a range was asked for
    body_bytes: what was sent of files
    failures: answers that the next requests get instead of a file, by path
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path, latency_s: float = 0.0, bytes_per_s: float = 0.0, has_ranges: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.latency_s = latency_s
        self.bytes_per_s = bytes_per_s
        self.has_ranges = has_ranges
        self.requests: list[str] = []
        self.failures: dict[str, list[int]] = {}
        self.body_bytes = 0
        self._lock = threading.Lock()
        self._free_at = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def start(self) -> None:
        """Serve in a thread until `stop`."""
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self.shutdown()
        self._thread.join()
        self.server_close()

    def wait_to_send(self, size: int) -> None:
        """Sleep until `size` bytes have gone through a line that all connections share."""
        with self._lock:
            self.body_bytes += size
            if not self.bytes_per_s:
                return
            self._free_at = max(self._free_at, time.monotonic()) + size / self.bytes_per_s
            until = self._free_at
        time.sleep(max(0.0, until - time.monotonic()))


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        server, path = self.server, self.path.partition("?")[0]
        if path == TRAFFIC:
            self._send(200, json.dumps({"bytes": server.body_bytes, "requests": len(server.requests)}).encode())
            return
        asked = _RANGE.fullmatch(self.headers.get("Range", "")) if server.has_ranges else None
        server.requests.append(path.lstrip("/") + (f"@{asked[1]}" if asked else ""))
        time.sleep(server.latency_s)
        failures = server.failures.get(path.lstrip("/"))
        file = server.folder / path.lstrip("/")
        if failures or not file.is_file():
            self.send_error(failures.pop(0) if failures else 404)
            return
        data = file.read_bytes()
        if asked is None:
            self._send(200, data)
            return
        start, end = int(asked[1]), min(int(asked[2]) + 1, len(data))
        if start >= len(data):
            self.send_error(416)
            return
        self._send(206, data[start:end], f"bytes {start}-{end - 1}/{len(data)}")

    def _send(self, status: int, body: bytes, content_range: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        with suppress(OSError):
            for start in range(0, len(body), CHUNK_BYTES):
                chunk = body[start : start + CHUNK_BYTES]
                self.server.wait_to_send(len(chunk))
                self.wfile.write(chunk)

    def log_message(self, *_: object) -> None:
        """No line for a request."""


def main() -> None:
    """Serve a folder until standard input ends; its port is printed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency_s", type=float, default=0.0)
    parser.add_argument("--bytes_per_s", type=float, default=0.0)
    parser.add_argument("--no_ranges", action="store_true")
    options = parser.parse_args()
    server = FileServer(options.folder, options.latency_s, options.bytes_per_s, not options.no_ranges)
    server.start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main()
