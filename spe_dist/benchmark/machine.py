"""What a figure was measured on, in one line: the date, the commit, the machine and how busy it was."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from spe_dist import __version__
from spe_dist.utils.parallel import available_processes

VECTORS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")  # instruction sets that matter to products, the best first


@dataclass(frozen=True)
class Start:
    """What is to be known before a measurement begins: files may change while it runs."""

    commit: str
    load: float

    @classmethod
    def now(cls) -> Start:
        return cls(commit(), os.getloadavg()[0])


def machine_line(start: Start) -> str:
    """Date, commit or version, processor, cores, torch, and the load average before and now."""
    date = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
    cores = f"{available_processes()} cores"
    software = f"Python {platform.python_version()}, torch {package('torch')}"
    load = f"load {start.load:.1f} before and {os.getloadavg()[0]:.1f} after"
    return ", ".join([date, start.commit, processor(), cores, software, load])


def commit() -> str:
    """The checkout's commit, with a plus where files differ from it; the version where this is no checkout."""
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--exclude", "*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return f"version {__version__}"
    return f"commit {found}"


def processor() -> str:
    """The processor's name and its instructions for vectors."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    flags = set(found.get("flags", "").split())
    best = [f" ({name})" for name in VECTORS if name in flags][:1]
    return "".join([found.get("model name", platform.machine()), *best])


def package(name: str) -> str:
    """Its version; "none" where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
