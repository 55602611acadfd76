"""The base installation, without the packages of the extra `train`: models load, predict and are scored."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from project import ROOT

from spe_dist.cli.options.extras import TRAIN_EXTRA

# An interpreter in which the packages of the extra are not installed.
BASE = f"""
import sys

class WithoutExtra:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {TRAIN_EXTRA} else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(WithoutExtra, sys.meta_path)
"""
COMMAND = f"{BASE}\nfrom spe_dist.cli.main import main\nsys.exit(main(sys.argv[1:]))"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=240)


def test_the_extra_is_what_the_project_file_says():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = {Requirement(text).name for text in project["optional-dependencies"]["train"]}
    assert extra == set(TRAIN_EXTRA)
    assert not extra & {Requirement(text).name for text in project["dependencies"]}


@pytest.mark.slow
def test_text_is_predicted_scored_and_compared(extractor_folder: Path, demo_corpus: Path, tmp_path: Path) -> None:
    gold, predicted = demo_corpus / "extraction" / "dev.json", tmp_path / "predicted.json"
    (tmp_path / "a.txt").write_text("John Smith works for IBM in Boston .\n")
    done = run("predict", extractor_folder, tmp_path / "a.txt", "--html", tmp_path / "page.html", "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["words"][0] == "John" and (tmp_path / "page.html").is_file()
    done = run("predict", extractor_folder, gold, "--format", "corpus", "--output", predicted, "--threads", 1)
    assert done.returncode == 0 and f"next: spe score --gold {gold}" in done.stderr, done.stderr
    done = run("score", "--gold", gold, "--predictions", predicted, "--bootstrap", 20)
    assert done.returncode == 0 and "relation" in done.stdout.lower(), done.stderr
    page = tmp_path / "compared.html"
    done = run("compare", "--gold", gold, "--a", predicted, "--b", gold, "--output", page, "--bootstrap", 20)
    assert done.returncode == 0 and page.is_file(), done.stderr
    done = run("corpus", "inspect", gold)
    assert done.returncode == 0, done.stderr


def test_the_library_predicts(extractor_folder: Path) -> None:
    program = f"{BASE}\nfrom spe_dist import Extractor\n"
    program += "print(len(Extractor.from_pretrained(sys.argv[1]).predict('Ada lives in Rome.')))"
    command = [sys.executable, "-c", program, str(extractor_folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=240)
    assert done.returncode == 0 and done.stdout == "1\n", done.stderr


@pytest.mark.parametrize(
    ("arguments", "package"),
    [
        (["pretrain", "--preset", "demo", "--shards", "S", "--output", "OUT"], "deepspeed"),
        (["finetune", "--train", "F", "--start", "S", "--output", "OUT"], "deepspeed"),
        (["shards", "make", "--input", "README.md", "--output", "OUT", "--train_vocab", "100"], "webdataset"),
        (["experiments", "run", "demo"], "deepspeed"),
    ],
)
def test_what_trains_names_the_extra_in_one_line(arguments: list[str], package: str, tmp_path: Path) -> None:
    output = tmp_path / "output"
    done = run(*(str(output) if word == "OUT" else word for word in arguments))
    expected = f"error: this needs {package}, which is not installed; pip install 'spe-dist[train]'\n"
    assert (done.returncode, done.stderr) == (2, expected) and not output.exists()
