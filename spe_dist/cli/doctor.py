"""What this machine offers to training, and what stands in its way.

spe doctor            report; exit status 1 where there are problems
spe doctor --clean    first remove what killed runs have left (nothing that a live process uses)

torchrun --nproc_per_node 8 -m spe_dist doctor --preflight --output RUN
                      under any launcher, or alone: whether a run would work. A line each, ok, warning or problem, and
                      exit status 1 where there are problems; it ends in any case
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.specifiers import SpecifierSet

from spe_dist import __version__
from spe_dist.cli.exits import DONE, FAILED, run_command
from spe_dist.cli.options.extras import TO_TRAIN, missing, require
from spe_dist.cli.options.numbers import number
from spe_dist.cli.options.parser import Parser
from spe_dist.distributed import launch
from spe_dist.distributed.preflight import FEW_RANKS, RANK_S, TIMEOUT_S
from spe_dist.errors import LaunchError
from spe_dist.utils.leftovers import BUFFERS, in_use, unused_buffers
from spe_dist.utils.tables import aligned
from spe_dist.utils.wording import how_many

# As in pyproject.toml.
SUPPORTED_PYTHON = ">=3.11,<3.14"
SUPPORTED = {"torch": ">=2.10,<3", "deepspeed": ">=0.19.8,<0.20", "transformers": ">=5,<6", "webdataset": ">=1.0,<2"}
SHARED_MEMORY = Path("/dev/shm")
STALE_LOCK_S = 180.0
MIN_FREE_GIB = 2.0
MIN_SHARED_MEMORY_GIB = 0.25
GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """One line of the report. `remedy` is only there where there is a problem."""

    topic: str
    text: str
    remedy: str = ""


def versions() -> list[Finding]:
    """Python and the libraries, and whether they are supported."""
    found = [_version("Python", platform.python_version(), SUPPORTED_PYTHON, "make install PYTHON=python3.12")]
    for name, bounds in SUPPORTED.items():
        remedy = f"pip install '{name}{bounds}', or make install"
        try:
            found.append(_version(name, metadata.version(name), bounds, remedy))
        except metadata.PackageNotFoundError:
            extra = missing(name)
            found.append(Finding(name, f"not installed{', needed to train' if extra else ''}", "" if extra else remedy))
    return found


def _version(name: str, version: str, bounds: str, remedy: str) -> Finding:
    supported = SpecifierSet(bounds).contains(version, prereleases=True)
    return Finding(
        name, f"{version}, {'supported' if supported else f'not supported ({bounds})'}", "" if supported else remedy
    )


def devices() -> list[Finding]:
    """GPUs that torch sees, else the CPU and what it can do in 16 bits."""
    try:
        import torch
    except ImportError as error:
        return [Finding("device", f"unknown: {error}", "repair torch first")]
    from spe_dist.distributed.deepspeed_config import cpu_has_bfloat16

    fast = "bfloat16 in hardware" if cpu_has_bfloat16() else "no bfloat16 in hardware: precision auto is float32"
    found = [Finding("CPU", f"{_cores()} cores usable, {fast}")]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            found.append(
                Finding(f"cuda:{index}", f"{gpu.name}, {gpu.total_memory / GIB:.0f} GiB, CUDA {torch.version.cuda}")
            )
    elif torch.version.cuda:
        found.append(
            Finding("GPU", f"torch is built for CUDA {torch.version.cuda} but sees no GPU: no driver, or none assigned")
        )
    elif shutil.which("nvidia-smi"):
        found.append(
            Finding(
                "GPU",
                "there is an NVIDIA driver, but this torch is built for CPUs",
                "make install TORCH=... with a CUDA build",
            )
        )
    else:
        found.append(Finding("GPU", "none; training runs on the CPU"))
    return found


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def kernels() -> list[Finding]:
    """Which kernel each part uses and why; an `apex` that is not NVIDIA's is a problem."""
    try:
        module = importlib.import_module("spe_dist.model.kernels")
        found = [Finding(f"kernel: {row.part}", f"{row.kernel} ({row.why})") for row in module.choose_kernels()]
        apex = module.find_apex()
    except ImportError as error:
        return [Finding("kernels", f"unknown: {error}", "repair the libraries first")]
    if apex.kind == "unrelated":
        found.append(Finding("apex", apex.detail, f"pip uninstall apex; {module.APEX_REMEDY}"))
    return found


def compilers() -> list[Finding]:
    """What --compile needs; the optimizer is torch's, also where it is offloaded."""
    ninja = shutil.which("ninja")
    compiler = next((path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))), None)
    found = [
        Finding("ninja", ninja or "not on PATH; only --compile needs it (activate the environment)"),
        Finding("compiler", compiler or "no C++ compiler; only --compile needs it (apt-get install g++)"),
    ]
    built = sorted({file.parent.name for folder in extension_roots() for file in folder.glob("*/*/*.so")})
    found.append(Finding("built extensions", ", ".join(built) or "none"))
    if "deepspeed_shm_comm" not in built:
        found.append(Finding("deepspeed_shm_comm", "not built, and not needed: our CPU ranks use gloo"))
    return found


def extension_roots() -> list[Path]:
    """Where torch compiles extensions to."""
    given = os.environ.get("TORCH_EXTENSIONS_DIR")
    roots = [Path(given).parent, Path(given)] if given else [Path.home() / ".cache" / "torch_extensions"]
    return [root for root in roots if root.is_dir()]


def stale_locks() -> list[Path]:
    """Locks of compilations that no process here holds: every later run waits at them forever, in silence."""
    locks = {file for root in extension_roots() for pattern in ("*/lock", "*/*/lock") for file in root.glob(pattern)}
    old = [file for file in locks if _age_s(file) > STALE_LOCK_S]
    return sorted(set(old) - in_use(old))


def shared_memory_leftovers() -> list[Path]:
    """Buffers of DeepSpeed's CPU all-reduce (69 MB each) that no live process uses."""
    return unused_buffers(SHARED_MEMORY)


def leftovers() -> list[Finding]:
    """What killed runs have left behind."""
    remedy = "spe doctor --clean"
    found = [Finding("stale lock", f"{lock}, {_age_s(lock) / 60:.0f} minutes old", remedy) for lock in stale_locks()]
    buffers = shared_memory_leftovers()
    if buffers:
        size = sum(_size(file) for file in buffers) / GIB
        found.append(
            Finding("leftover memory", f"{len(buffers)} unused {SHARED_MEMORY}/{BUFFERS}, {size:.2f} GiB", remedy)
        )
    return found or [Finding("leftovers", "none: no stale locks, no unused shared memory")]


def clean() -> list[Path]:
    """Remove stale locks and unused buffers; returns what was removed."""
    removed = []
    for file in (*stale_locks(), *shared_memory_leftovers()):
        try:
            file.unlink()
            removed.append(file)
        except OSError as error:
            print(f"cannot remove {file}: {error}", file=sys.stderr)
    return removed


def _age_s(file: Path) -> float:
    try:
        return time.time() - file.stat().st_mtime
    except OSError:
        return 0.0


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def disks(folder: Path | None = None) -> list[Finding]:
    """Free space where checkpoints, temporary files and shared memory go."""
    found = []
    for place, least in (
        (folder or Path.cwd(), MIN_FREE_GIB),
        (Path(os.environ.get("TMPDIR", "/tmp")), MIN_FREE_GIB),
        (SHARED_MEMORY, MIN_SHARED_MEMORY_GIB),
    ):
        try:
            free = shutil.disk_usage(place).free / GIB
        except OSError:
            continue
        remedy = f"free some: at least {least:g} GiB are needed here" if free < least else ""
        found.append(Finding(f"free in {place}", f"{free:.1f} GiB", remedy))
    return found


def launcher(environ: Mapping[str, str] = os.environ) -> list[Finding]:
    """Launcher variables seen and what a run started here would make of them."""
    names = (
        *launch.TORCH_VARIABLES,
        *launch.MPI_SIZES,
        "SLURM_JOB_ID",
        "SLURM_STEP_ID",
        "SLURM_PROCID",
        "SLURM_NTASKS",
    )
    seen = " ".join(f"{name}={environ[name]}" for name in names if environ.get(name)) or "no launcher variables"
    try:
        place = launch.detect(environ)
    except LaunchError as error:
        return [Finding("launcher", seen, str(error))]
    return [Finding("launcher", f"{seen}: {place.launcher}, rank {place.rank} of {place.ranks}")]


CHECKS: tuple[Callable[[], list[Finding]], ...] = (versions, devices, kernels, compilers, leftovers, disks, launcher)


def report(findings: Iterable[Finding]) -> str:
    """One aligned line a finding; a problem starts with `!` and is followed by its remedy."""
    rows = []
    for finding in findings:
        rows.append((f"{'!' if finding.remedy else ' '} {finding.topic}", finding.text))
        if finding.remedy:
            rows.append(("", f"-> {finding.remedy}"))
    return "\n".join(aligned(rows, "<"))


def preflight(output: Path | None, timeout_s: float | None = None) -> int:
    """Check, print a line for each finding on rank 0, and return the same exit status on all ranks."""
    require(*TO_TRAIN)
    from spe_dist.distributed.preflight.check import check_launch

    began = time.monotonic()
    lines, problem = check_launch(output, timeout_s)
    if lines:
        print("\n".join(aligned([(line.level, line.topic, line.text) for line in lines], "<<<")))
        found = [
            how_many(count, level)
            for level in ("problem", "warning")
            if (count := sum(line.level == level for line in lines))
        ]
        print(f"preflight: {', '.join(found) or 'no problems'}, {time.monotonic() - began:.1f} s", flush=True)
    return FAILED if problem else DONE


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; exit status 1 where there are problems."""
    return run_command(lambda: _run(sys.argv[1:] if argv is None else argv))


def _run(argv: Sequence[str]) -> int:
    parser = Parser("spe doctor", "[--clean | --preflight [--output RUN]]", __doc__)
    parser.add_argument("--clean", action="store_true", help="remove stale locks and shared memory of killed runs")
    parser.add_argument(
        "--preflight",
        action="store_true",
        help="with all ranks of a launch: network, versions, clocks, shared folder, free space",
    )
    parser.add_argument("--output", type=Path, metavar="RUN", help="folder of the run, for --preflight")
    after = f"{TIMEOUT_S:g}, and {RANK_S:g} for each rank beyond {FEW_RANKS}"
    text = f"end --preflight with a problem after so long [{after}]"
    parser.add_argument("--timeout_s", type=number(1.0), metavar="SECONDS", help=text)
    options = parser.parse(argv)
    if options.preflight:
        return preflight(options.output, options.timeout_s)
    print(f"spe-dist {__version__} on {platform.node()}, {platform.system()} {platform.release()}")
    if options.clean:
        for file in clean():
            print(f"removed {file}")
    findings = [finding for check in CHECKS for finding in check()]
    print(report(findings))
    problems = sum(bool(finding.remedy) for finding in findings)
    print(how_many(problems, "problem") if problems else "no problems")
    return FAILED if problems else DONE
