"""A stand-in for the Hugging Face hub on this machine: the calls that publish a folder and fetch it again.

Repositories are kept in memory. Every file is sent inside the commit, as the hub has it for small files.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlparse

TOKEN, USER = "hf_stand_in", "anna"


class HubServer(ThreadingHTTPServer):
    """Repositories by name, whether they are private, and the requests that were made."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.requests: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commit_id(self, name: str) -> str:
        digest = hashlib.sha1()
        for path, content in sorted(self.files[name].items()):
            digest.update(path.encode() + content)
        return digest.hexdigest()


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """A server that answers until the block ends."""
    with HubServer() as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlparse(self.path).path
        self.server.requests.append(f"{self.command} {path}")
        may_write = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "whoami-v2"]:
            if may_write:
                self._json({"name": USER, "orgs": []})
            else:
                self._json({"error": "Invalid token"}, 401)
        elif parts == ["api", "validate-yaml"]:
            self._json({"errors": [], "warnings": []})
        elif parts[:3] == ["api", "repos", "create"]:
            self._create(json.loads(body))
        elif parts[:2] == ["api", "models"]:
            self._model("/".join(parts[2:4]), parts[4:], body)
        elif parts[2:3] == ["resolve"]:
            self._file("/".join(parts[:2]), "/".join(parts[4:]))
        else:
            self._missing()

    def _create(self, asked: dict) -> None:
        name = f"{asked.get('organization') or USER}/{asked['name']}"
        if not name.startswith(f"{USER}/"):
            self._json({"error": "You don't have the rights to create a model under this namespace"}, 403)
            return
        exists = name in self.server.files
        self.server.files.setdefault(name, {})
        self.server.private.setdefault(name, bool(asked.get("private")) or asked.get("visibility") == "private")
        self._json({"url": f"{self.server.address}/{name}", "name": name}, 409 if exists else 200)

    def _model(self, name: str, rest: list[str], body: bytes) -> None:
        if name not in self.server.files:
            self._missing()
            return
        files = self.server.files[name]
        if rest[:1] == ["preupload"]:
            asked = json.loads(body)["files"]
            self._json({"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]})
        elif rest[:1] == ["commit"]:
            for line in map(json.loads, body.decode().splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "deletedFile":
                    del files[line["value"]["path"]]
            commit = self.server.commit_id(name)
            url = f"{self.server.address}/{name}/commit/{commit}"
            self._json({"success": True, "commitOid": commit, "commitUrl": url})
        elif rest[:1] == ["tree"]:
            hashes = {path: hashlib.sha1(content).hexdigest() for path, content in files.items()}
            self._json([{"type": "file", "path": p, "size": len(files[p]), "oid": oid} for p, oid in hashes.items()])
        else:
            listed = [{"rfilename": path} for path in files]
            self._json({"id": name, "modelId": name, "sha": self.server.commit_id(name), "siblings": listed})

    def _file(self, name: str, path: str) -> None:
        content = self.server.files.get(name, {}).get(path)
        if content is None:
            self._missing("EntryNotFound" if name in self.server.files else "RepoNotFound")
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.server.commit_id(name))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _missing(self, code: str = "RepoNotFound") -> None:
        self._json({"error": "not found"}, 404, {"X-Error-Code": code})

    def _json(self, document: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
