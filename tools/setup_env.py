#!/usr/bin/env python3
"""Make the virtual environment that the Makefile's targets run in.

    setup_env.py FOLDER [--python INTERPRETER] [--torch REQUIREMENT]

Torch is kept where an interpreter already imports one that is new enough (the environment then sees that
interpreter's packages), else installed: the CUDA build where the machine has an NVIDIA GPU, the CPU build elsewhere.
Everything else comes at the versions of constraints.txt. Run by any Python from 3.8 on; needs nothing installed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ((3, 11), (3, 13))  # oldest and newest supported
TORCH = "torch>=2.10,<3"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
INDEX_TIMEOUT_S = 40.0

# Run inside an interpreter; prints JSON. `torch` stays null where it does not import.
PROBE = """
import json, sys
found = {"version": sys.version_info[:2], "torch": None, "paths": [p for p in sys.path if p.endswith("-packages")]}
try:
    import torch
    found["torch"] = torch.__version__
except Exception:  # a torch that does not import, for whatever reason, is none
    pass
print(json.dumps(found))
"""
# Newest version among those on standard input that fits the requirement and is a CPU build; prints nothing if none.
PICK_CPU_BUILD = """
import sys
from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.version import Version
wanted = Requirement(sys.argv[1]).specifier
versions = [Version(text) for text in sys.stdin.read().split()]
fitting = [v for v in versions if v.local == "cpu" and wanted.contains(v.public)]
print(max(fitting) if fitting else "")
"""


def say(text: str) -> None:
    print(f"[setup] {text}", flush=True)


def probe(python: str) -> dict | None:
    """Version, torch and package folders of an interpreter; None where it does not run."""
    try:
        done = subprocess.run([python, "-c", PROBE], capture_output=True, text=True, timeout=180)
        return json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.TimeoutExpired, IndexError, ValueError):
        return None


def is_supported(found: dict) -> bool:
    return PYTHONS[0] <= tuple(found["version"]) <= PYTHONS[1]


def has_torch(found: dict) -> bool:
    """Whether the interpreter imports a torch of 2.10 or later."""
    if not found["torch"]:
        return False
    major, minor = (int(part) for part in found["torch"].split(".")[:2])
    return (2, 10) <= (major, minor) < (3, 0)


def choose_interpreter(asked: str, any_torch: bool) -> tuple[str, dict]:
    """The interpreter to build on: the one asked for, else one that has torch, else the first supported one."""
    names = [asked] if asked else ["python3", "python", "/usr/bin/python3", "python3.13", "python3.12", "python3.11"]
    found = []
    for name in dict.fromkeys(shutil.which(name) or name for name in names):
        facts = probe(name)
        if facts and is_supported(facts):
            found.append((name, facts))
            if asked or any_torch or has_torch(facts):
                return found[-1]
    if not found:
        sys.exit(
            f"error: no Python 3.11 to 3.13 among {', '.join(names)}; install one, or name it: make install PYTHON=..."
        )
    return found[0]


def create_environment(folder: Path, base: str, facts: dict, keep_torch: bool) -> str:
    """A virtual environment on `base`, which sees the packages of `base` where torch is kept. Returns its python."""
    options = ["--system-site-packages"] if keep_torch else []
    subprocess.run([base, "-m", "venv", "--clear", *options, str(folder)], check=True)
    python = str(folder / "bin" / "python")
    if keep_torch and not has_torch(probe(python) or {"torch": None}):
        # `base` is itself a virtual environment, whose packages an environment made from it does not see.
        ask = "import site; print(site.getsitepackages()[0])"
        site = subprocess.check_output([python, "-c", ask], text=True).strip()
        Path(site, "packages_of_base.pth").write_text("\n".join(facts["paths"]) + "\n")
    return python


def satisfies(python: str, version: str, requirement: str) -> bool:
    """Whether an installed version is what a requirement such as torch==2.13.0 asks for."""
    code = "import sys; from pip._vendor.packaging.requirements import Requirement as R; " + (
        "print(R(sys.argv[1]).specifier.contains(sys.argv[2], prereleases=True))"
    )
    done = subprocess.run([python, "-c", code, requirement, version], capture_output=True, text=True)
    return done.stdout.strip() == "True"


def has_gpu() -> bool:
    """Whether the machine has an NVIDIA GPU, asked of the driver, not of torch."""
    if Path("/dev/nvidia0").exists():
        return True
    try:
        return subprocess.run(["nvidia-smi", "-L"], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def find_cpu_build(python: str, requirement: str, index: str | None) -> str:
    """Version of the newest CPU build that fits, at pip's configured sources or at `index`; empty where none is."""
    command = [python, "-m", "pip", "--retries", "0", "--timeout", "5", "index", "versions", "torch"]
    if index:
        command += ["--index-url", index]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=INDEX_TIMEOUT_S).stdout
    except subprocess.TimeoutExpired:
        return ""
    versions = [line.split(":", 1)[1] for line in listed.splitlines() if line.startswith("Available versions:")]
    if not versions:
        return ""
    picked = subprocess.run(
        [python, "-c", PICK_CPU_BUILD, requirement],
        input=versions[0].replace(",", " "),
        capture_output=True,
        text=True,
    )
    return picked.stdout.strip()


def install_torch(python: str, asked: str) -> None:
    """Install torch into the environment, and say which and why."""
    requirement = asked or TORCH
    plain = " " in requirement or "+" in requirement or "/" in requirement  # pip options, an exact build, a file
    if plain or platform.system() != "Linux" or has_gpu():
        say(f"torch: installing {requirement} ({'as asked' if plain else 'CUDA build, the machine has a GPU'})")
        return pip_install(python, requirement.split())
    for index, place in ((None, "pip's configured sources"), (CPU_INDEX, CPU_INDEX)):
        version = find_cpu_build(python, requirement, index)
        if version:
            say(f"torch: installing the CPU build {version} from {place} (no GPU here; TORCH=... overrides)")
            return pip_install(python, [f"torch=={version}", *(["--extra-index-url", index] if index else [])])
    say(f"torch: no CPU build of {requirement} found, also not at {CPU_INDEX}; the default build comes, which is large")
    return pip_install(python, requirement.split())


def pip_install(python: str, arguments: list[str]) -> None:
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments], check=True)


def install_packages(python: str, pinned: bool) -> None:
    """The project (editable) and what it needs, at the pinned versions; without an index, at versions within bounds."""
    project = f"{ROOT}[train,cluster,arrow,test,dev,docs]"
    if not pinned:
        return pip_install(python, ["--editable", project])
    try:
        return pip_install(python, ["--constraint", str(ROOT / "constraints.txt"), "--editable", project])
    except subprocess.CalledProcessError:
        say("the pinned versions cannot be had here; trying what is installed, within the bounds of pyproject.toml")
    try:
        return pip_install(python, ["--retries", "0", "--no-build-isolation", "--editable", f"{ROOT}[train,test]"])
    except subprocess.CalledProcessError:
        sys.exit("error: installation failed; pip's own messages above name the package")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default="", help="interpreter to build on; default: one that has torch, else any")
    parser.add_argument("--torch", default="", help="requirement for pip, e.g. torch==2.13.0; default: keep or choose")
    parser.add_argument("--unpinned", action="store_true", help="newest versions within bounds, to renew the lock")
    options = parser.parse_args()
    os.chdir(ROOT)
    start = time.monotonic()
    folder = options.folder.absolute()
    python = str(folder / "bin" / "python")
    present = probe(python) or {}
    usable = bool(present) and is_supported(present) and has_torch(present) and not options.python
    if usable and (not options.torch or satisfies(python, present["torch"], options.torch)):
        say(f"torch: {present['torch']} of the existing {options.folder} is kept")
    else:
        base, facts = choose_interpreter(options.python, any_torch=bool(options.torch))
        keep_torch = has_torch(facts) and not options.torch
        say(f"environment {options.folder} on {base}, Python {'.'.join(map(str, facts['version']))}")
        python = create_environment(folder, base, facts, keep_torch)
        if keep_torch:
            say(f"torch: {facts['torch']} of {base} is kept, the environment sees its packages (TORCH=... overrides)")
        else:
            install_torch(python, options.torch)
    install_packages(python, pinned=not options.unpinned)
    say(f"ready after {time.monotonic() - start:.0f} s")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as failure:
        sys.exit(f"error: this command failed, its own messages stand above: {' '.join(map(str, failure.cmd))}")
