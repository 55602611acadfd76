"""The project's own files agree with each other: pins with bounds, README with what exists, the demo's table."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from project import ROOT

from tools import setup_env
from tools.setup_env import CPU_INDEX, PICK_CPU_BUILD, TORCH, has_torch, satisfies

OBJECT_STORES = ("s3", "gs")  # extras that nothing here is tested with; what reads them is fsspec


def pins() -> dict[str, Version]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in (line.split("==") for line in lines)}


def requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {name: texts for name, texts in project["optional-dependencies"].items() if name not in OBJECT_STORES}
    texts = project["dependencies"] + [text for extra in extras.values() for text in extra]
    return [Requirement(text) for text in texts]


def test_every_requirement_but_torch_is_pinned_within_its_bounds():
    pinned = pins()
    for requirement in requirements():
        name = canonicalize_name(requirement.name)
        if name == "torch":
            assert name not in pinned
            assert str(requirement.specifier) == str(Requirement(TORCH).specifier)
        else:
            assert requirement.specifier.contains(pinned[name]), requirement


def test_no_pin_brings_a_build_of_torch_or_cuda():
    assert not [name for name in pins() if re.match(r"(torch|triton|nvidia|cuda)(-|$)", name)]


def test_make_targets_that_the_readme_names_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+(?:-[a-z]+)*)", (ROOT / "README.md").read_text()))
    assert {"pretrain", "test"} <= named <= targets


@pytest.mark.parametrize("tool", sorted(path.name for path in (ROOT / "tools").glob("*.py")))
def test_every_tool_starts_by_its_path_where_the_project_is_not_installed(tool, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(ROOT / "tools" / tool), "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "usage:" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("version", "usable"), [("2.10.0", True), ("2.13.0+cpu", True), ("2.9.1", False), ("3.0.0", False), (None, False)]
)
def test_a_torch_is_kept_from_2_10_on(version, usable):
    assert has_torch({"torch": version}) is usable


def test_the_newest_fitting_cpu_build_is_picked_and_only_a_cpu_build():
    listed = "2.15.0 2.14.0+cu130 2.13.0+cpu 2.13.0 2.12.0+cpu 2.9.0+cpu"

    def pick(requirement: str) -> str:
        command = [sys.executable, "-c", PICK_CPU_BUILD, requirement]
        return subprocess.run(command, input=listed, capture_output=True, text=True, check=True).stdout.strip()

    assert pick("torch>=2.10,<3") == "2.13.0+cpu"
    assert pick("torch==2.12.0") == "2.12.0+cpu"
    assert pick("torch==2.15.0") == ""


def test_an_installed_build_answers_to_its_public_version():
    assert satisfies(sys.executable, "2.13.0+cpu", "torch==2.13.0")
    assert not satisfies(sys.executable, "2.13.0+cpu", "torch==2.12.0")


@pytest.mark.parametrize(
    ("gpu", "asked", "found", "installed"),
    [
        (False, "", {None: "2.13.0+cpu"}, ["torch==2.13.0+cpu"]),
        (False, "torch==2.12.0", {CPU_INDEX: "2.12.0+cpu"}, ["torch==2.12.0+cpu", "--extra-index-url", CPU_INDEX]),
        (False, "", {}, [TORCH]),
        (True, "", {None: "2.13.0+cpu"}, [TORCH]),
        (False, "torch==2.12.0 --pre", {}, ["torch==2.12.0", "--pre"]),
    ],
)
def test_the_build_of_torch_follows_the_machine(gpu, asked, found, installed, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(setup_env, "has_gpu", lambda: gpu)
    monkeypatch.setattr(setup_env.platform, "system", lambda: "Linux")
    monkeypatch.setattr(setup_env, "find_cpu_build", lambda python, requirement, index: found.get(index, ""))
    monkeypatch.setattr(setup_env, "pip_install", lambda python, arguments: calls.append(arguments))
    setup_env.install_torch("python", asked)
    assert calls == [installed]
    assert "torch" in capsys.readouterr().out
