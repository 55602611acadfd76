"""What was asked of each piece of work, and how far it is: piece.json in the piece's folder.

A piece's request is its settings, the content of the user's files, and the requests of the pieces it needs. Where a
finished piece was asked for something else than the experiment file says now, nothing is mixed: it counts as changed.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spe_dist import __version__
from spe_dist.data.shards.manifest import MANIFEST_NAME
from spe_dist.errors import DataError
from spe_dist.experiments.pieces import Piece, Plan
from spe_dist.experiments.settings import NEUTRAL
from spe_dist.utils.files import file_sha256, write_atomically
from spe_dist.utils.reading.json_file import is_number, is_whole, read_object
from spe_dist.utils.reading.names import is_safe_name
from spe_dist.utils.run_files import CHECKPOINTS_FOLDER, POINTER_FILE, SCORES_FILE, STATE_FILE

RECORD_FILE = "piece.json"
LOG_FILE = "log.txt"
HASHES_FILE = "input_hashes.json"
LOOKED_UP = ("start", "tokenizer")  # inputs that may be names which the libraries look up
STATES = ("new", "started", "stopped", "failed", "finished")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass
class Record:
    """One piece's past: `state` is new, started, stopped, failed or finished."""

    state: str = "new"
    seconds: float = 0.0
    request: dict[str, Any] = field(default_factory=dict)
    process: int | None = None


def read_record(folder: Path) -> Record:
    """The record of a piece's folder; a new one where there is none or it is damaged."""
    try:
        content = read_object(folder / RECORD_FILE, "remove it")
    except (OSError, DataError):
        return Record()
    state, seconds, request, process = (content.get(name) for name in ("state", "seconds", "request", "process"))
    is_whole_record = state in STATES and is_number(seconds, 0) and isinstance(request, dict)
    if not is_whole_record or not (process is None or is_whole(process, 1)):
        return Record()
    return Record(str(state), float(seconds or 0), request or {}, process)


def write_record(piece: Piece, record: Record) -> None:
    """Write piece.json whole or not at all."""
    piece.folder.mkdir(parents=True, exist_ok=True)
    content = {
        "piece": piece.title,
        "state": record.state,
        "seconds": round(record.seconds, 3),
        "process": record.process,
        "version": __version__,
        "command": piece.command(),
        "request": record.request,
    }
    write_atomically(piece.folder / RECORD_FILE, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


class Requests:
    """The requests of a plan's pieces. Hashes of large inputs are kept in OUTPUT/input_hashes.json.

    `trusting`: an input that is not there any more is taken to be what the piece's record says, for tables that are
    printed where the data no longer is.
    """

    def __init__(self, plan: Plan, output: Path, trusting: bool = False):
        self.output = output
        self.trusting = trusting
        self.hashes: dict[str, str] = {}
        with contextlib.suppress(OSError, DataError):  # damaged: files are hashed again
            found = read_object(output / HASHES_FILE, "remove it")
            self.hashes = {key: value for key, value in found.items() if isinstance(value, str)}
        self.by_id: dict[str, dict[str, Any]] = {}
        for piece in plan.pieces.values():  # each stands after what it needs
            self.by_id[piece.id] = self._request(piece)

    def save(self) -> None:
        self.output.mkdir(parents=True, exist_ok=True)
        write_atomically(self.output / HASHES_FILE, json.dumps(self.hashes, indent=1) + "\n")

    def _request(self, piece: Piece) -> dict[str, Any]:
        settings = {
            name: value for name, value in piece.settings.items() if name not in NEUTRAL and name not in piece.inputs
        }
        request = {
            "kind": piece.kind,
            "settings": settings,
            "inputs": {name: self._content(piece, name, path) for name, path in piece.inputs.items()},
            "needs": {need: request_sha256(self.by_id[need]) for need in piece.needs},
        }
        return json.loads(json.dumps(request))  # as piece.json gives it back

    def _content(self, piece: Piece, name: str, path: str) -> str:
        """What an input is: the hash of its content, its place inside OUTPUT, or the name that it is looked up by."""
        absolute = Path(path).absolute()
        if absolute.is_relative_to(self.output):
            return str(absolute.relative_to(self.output))
        files = sorted(Path(found) for found in glob.glob(path, recursive=True)) or [Path(path)]
        if all(file.exists() for file in files):
            return self._hash(files)
        recorded = str(read_record(piece.folder).request.get("inputs", {}).get(name, ""))
        if self.trusting and _SHA256.fullmatch(recorded):
            return recorded
        if self.trusting or name in LOOKED_UP:
            return path
        raise DataError(f"{piece.title}: {name} file {path} does not exist; check the experiment file and --set")

    def _hash(self, files: list[Path]) -> str:
        parts = []
        for file in files:
            inside = sorted(p for p in file.rglob("*") if p.is_file()) if file.is_dir() else [file]
            for path in inside:
                name = str(path.relative_to(file)) if file.is_dir() else ""
                parts.append(f"{name} {self._file_hash(path)}")
        return parts[0].strip() if len(parts) == 1 else hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def _file_hash(self, path: Path) -> str:
        stat = path.stat()
        key = f"{path.absolute()} {stat.st_size} {stat.st_mtime_ns}"
        if key not in self.hashes:
            self.hashes[key] = file_sha256(path)
        return self.hashes[key]


def request_sha256(request: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that distinguish one request from another."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:16]


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """In words what `new` asks for otherwise than `old`; empty where they are equal."""
    changes = []
    for section in ("settings", "inputs", "needs"):
        before, now = old.get(section, {}), new.get(section, {})
        for name in dict.fromkeys([*before, *now]):
            if before.get(name) == now.get(name) and (name in before) == (name in now):
                continue
            if section == "inputs":
                changes.append(f"{name} has other content")
            elif section == "needs":
                changes.append(f"{name} is another")
            else:
                was = repr(before[name]) if name in before else "not set"
                changes.append(f"{name} was {was} and is {repr(now[name]) if name in now else 'not set'}")
    return changes


def is_complete(piece: Piece) -> bool:
    """Whether the piece's command reached its end, by what it wrote; its exit status alone does not show it."""
    result_folder = piece.result_folder
    try:
        if piece.kind == "demo":
            return (result_folder / "text.txt").is_file()
        if piece.kind == "shards":
            return (result_folder / MANIFEST_NAME).is_file()
        if piece.kind == "export":
            return (result_folder / "spe_config.json").is_file()
        if piece.kind == "pretrain":
            newest = (result_folder / CHECKPOINTS_FOLDER / POINTER_FILE).read_text(encoding="utf-8").strip()
            if not is_safe_name(newest):
                return False
            state = read_object(result_folder / CHECKPOINTS_FOLDER / newest / STATE_FILE, "remove it")
            return is_whole(state.get("step")) and state["step"] >= state["total_steps"]
        return read_object(result_folder / SCORES_FILE, "remove it").get("finished") is True
    except (OSError, ValueError, KeyError, TypeError):
        return False


def is_running(record: Record, piece: Piece) -> bool:
    """Whether the process of an earlier runner still works on the piece."""
    if record.process is None or record.state != "started":
        return False
    with contextlib.suppress(OSError):
        os.kill(record.process, 0)
        command = Path(f"/proc/{record.process}/cmdline")
        return not command.parent.parent.is_dir() or str(piece.result_folder).encode() in command.read_bytes()
    return False


def last_lines(log: Path, count: int = 12) -> list[str]:
    """The end of the log's last attempt, progress that was rewritten in place reduced to its last state."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 20_000))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    attempt = re.split(r"^\$ .*$", text, flags=re.MULTILINE)[-1]
    lines = [line.rstrip("\r").split("\r")[-1].rstrip() for line in attempt.split("\n")]
    return [line for line in lines if line][-count:]
