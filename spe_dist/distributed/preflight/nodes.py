"""What each rank says of its node, and where the nodes differ in what a run needs to be the same."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import torch

from spe_dist import __version__
from spe_dist.distributed.launch import node_name
from spe_dist.distributed.preflight.lines import Level, Line, name_ranks

GIB = 2**30
SHARED_MEMORY = Path("/dev/shm")
SAME = ("spe-dist", "torch", "deepspeed", "CUDA", "NCCL")  # other versions exchange other things
MOST_CLOCK_S = 2.0
DRIVER = Path("/proc/driver/nvidia/version")
LEAST_GIB = {"output": 2.0, "temporary files": 2.0, "shared memory": 0.25}


@dataclass(frozen=True)
class Facts:
    """Of one rank.

    Attributes:
        free: GiB free by what for, and the folder.
    """

    rank: int
    node: str
    device: str
    versions: Mapping[str, str]
    free: Mapping[str, tuple[float, str]] = field(default_factory=dict)


def gather_facts(rank: int, device: torch.device, output: Path | None) -> Facts:
    """What this rank sees of its node."""
    places = {"temporary files": Path(os.environ.get("TMPDIR") or "/tmp"), "shared memory": SHARED_MEMORY}
    if output is not None:
        places["output"] = output
    free = {}
    for purpose, folder in places.items():
        try:
            free[purpose] = (shutil.disk_usage(folder).free / GIB, str(folder))
        except OSError:
            continue
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return Facts(rank, node_name(), name, versions(), free)


def versions() -> dict[str, str]:
    """Of what a run is made of; packages that are not installed are named so."""
    found = {"spe-dist": __version__, "Python": platform.python_version(), "torch": torch.__version__}
    try:
        found["deepspeed"] = metadata.version("deepspeed")
    except metadata.PackageNotFoundError:
        found["deepspeed"] = "not installed"
    if torch.version.cuda:
        found["CUDA"] = torch.version.cuda
    if torch.cuda.is_available():
        found["NCCL"] = ".".join(map(str, torch.cuda.nccl.version()))
    with contextlib.suppress(OSError, IndexError):
        found["driver"] = DRIVER.read_text(encoding="ascii", errors="replace").split("  ")[1].strip()
    return found


def compare_versions(facts: Sequence[Facts]) -> list[Line]:
    """One line, or one for each version that differs."""
    lines = [Line("problem", "versions", "deepspeed is not installed: pip install 'spe-dist[train]'")] * any(
        fact.versions.get("deepspeed") == "not installed" for fact in facts
    )
    for name in sorted({name for fact in facts for name in fact.versions}):
        by_version = _ranks_by({fact.rank: fact.versions.get(name, "none") for fact in facts})
        if len(by_version) > 1:
            level: Level = "problem" if name in SAME else "warning"
            found = "; ".join(f"{version} on {name_ranks(ranks)}" for version, ranks in by_version.items())
            remedy = "install the same on all nodes" if level == "problem" else "the same on all nodes is safer"
            lines.append(Line(level, "versions", f"{name} differs: {found}; {remedy}"))
    if lines:
        return lines
    listed = ", ".join(f"{name} {version}" for name, version in facts[0].versions.items())
    return [Line("ok", "versions", f"{listed}{' on all ranks' if len(facts) > 1 else ''}")]


def compare_devices(facts: Sequence[Facts]) -> Line:
    """Whether all ranks compute on the same kind of device."""
    by_device = _ranks_by({fact.rank: fact.device for fact in facts})
    if len(by_device) > 1:
        found = "; ".join(f"{device} on {name_ranks(ranks)}" for device, ranks in by_device.items())
        mixed = "CPU" in by_device
        text = "a GPU is not seen there" if mixed else "the slowest sets the pace"
        return Line("problem" if mixed else "warning", "devices", f"{found}: {text}")
    nodes = {fact.node for fact in facts}
    return Line("ok", "devices", f"{len(facts)} x {facts[0].device} on {len(nodes)} node{'s' * (len(nodes) > 1)}")


def check_free_space(facts: Sequence[Facts]) -> list[Line]:
    """For each purpose the node with the least."""
    lines = []
    for purpose, least in LEAST_GIB.items():
        found = [(*fact.free[purpose], fact.node) for fact in facts if purpose in fact.free]
        if not found:
            continue
        gib, folder, node = min(found)
        where = f"{folder} of {node}" if len({fact.node for fact in facts}) > 1 else folder
        text = f"{purpose}: {gib:.1f} GiB in {where}"
        enough = gib >= least
        remedy = "" if enough else f", at least {least:g} GiB are needed: free some"
        level: Level = "ok" if enough else "warning" if purpose == "temporary files" else "problem"
        lines.append(Line(level, "free space", f"{text}{remedy}"))
    return lines


def compare_clocks(seconds_ahead: Mapping[str, float]) -> Line:
    """`seconds_ahead`: of each node's clock, against that of rank 0's node."""
    node, ahead = max(seconds_ahead.items(), key=lambda item: abs(item[1]))
    if len(seconds_ahead) == 1:
        return Line("ok", "clocks", "one node")
    text = f"{node} differs by {abs(ahead):.2g} s at most" if abs(ahead) < 1 else f"{node} is {ahead:+.1f} s off"
    if abs(ahead) < MOST_CLOCK_S:
        return Line("ok", "clocks", text)
    return Line("warning", "clocks", f"{text}: times in logs of the nodes do not fit each other; run ntpd or chrony")


def _ranks_by(values: Mapping[int, str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for rank, value in values.items():
        found.setdefault(value, []).append(rank)
    return found
