"""`tools/wheelhouse.sh`: what it takes along is pinned, and what it cannot do is one line."""

from __future__ import annotations

import re
import subprocess
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from project import ROOT

SCRIPT = ROOT / "tools" / "wheelhouse.sh"


def run(*arguments):
    return subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, timeout=60)


def taken() -> set[str]:
    listed = re.search(r"^missing=\((.*?)\)", SCRIPT.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert listed is not None
    return {canonicalize_name(name) for name in listed.group(1).split()}


def test_all_that_is_taken_along_is_pinned():
    pinned = {canonicalize_name(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert taken() | {"deepspeed"} <= pinned


def test_what_training_needs_is_taken_along_or_is_on_the_machine():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {
        canonicalize_name(Requirement(text).name)
        for text in project["dependencies"] + project["optional-dependencies"]["train"]
    }
    # spaCy only splits text into words, and the check's text is split.
    there = set(
        "filelock fsspec huggingface-hub jinja2 matplotlib numpy packaging pyyaml safetensors spacy tensorboard".split()
    )
    there |= {"tokenizers", "torch", "tqdm", "transformers"}
    assert needed - there <= taken() | {"deepspeed"}


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((), "wheelhouse.sh DIR [--python 3.12]"),
        (("--pyton", "3.12"), "error: unknown option --pyton"),
        (("DIR", "--python"), "--python needs a version"),
    ],
)
def test_without_a_folder_or_with_a_wrong_option_it_says_how_it_is_used(arguments, message, tmp_path):
    done = run(*arguments)
    assert done.returncode in (1, 2) and message in done.stdout + done.stderr
    assert not (ROOT / "DIR").exists()


def test_help_is_its_own_first_lines():
    done = run("--help")
    assert done.returncode == 0 and "Collect what a bare GPU machine" in done.stdout
