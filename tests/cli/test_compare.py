"""spe compare from files to a page."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from project import ROOT

from spe_dist.cli import compare

COMMAND = [sys.executable, "-m", "spe_dist", "compare"]


def sentences(relations: list[dict]) -> str:
    entities = [{"type": "Peop", "start": 0, "end": 1}, {"type": "Loc", "start": 2, "end": 3}]
    return json.dumps([{"tokens": ["Kim", "in", "Oslo"], "entities": entities, "relations": relations}])


@pytest.fixture
def files(tmp_path):
    paths = {name: tmp_path / f"{name}.json" for name in ("gold", "a", "b")}
    relation = {"type": "Live_In", "head": 0, "tail": 1}
    for name, path in paths.items():
        path.write_text(sentences([] if name == "a" else [relation]))
    return [argument for name, path in paths.items() for argument in (f"--{name}", str(path))]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT)


def test_it_writes_a_page_and_prints_the_differences(files, tmp_path):
    page = tmp_path / "new" / "page.html"
    done = run(*files, "--output", page, "--names", "BERT,SPE", "--bootstrap", "20")
    assert done.returncode == 0, done.stderr
    assert "Ent+Rel 0.0% 100.0% +100.0" in " ".join(done.stdout.split())
    assert f"{page}: 1 of 1 sentence drawn" in done.stdout
    text = page.read_text(encoding="utf-8")
    assert "<title>BERT and SPE</title>" in text and "Live_In" in text


def test_users_errors_are_told_in_one_line(files, tmp_path):
    for arguments, message in (
        (("--output", files[1]), "is the file of --gold too"),
        (("--output", tmp_path / "p.html", "--names", "one"), "two different names"),
        (("--output", tmp_path / "p.html", "--symmetric", "Spouse"), "'Spouse' is not a relation type"),
        (("--output", tmp_path), "cannot be written"),
        (("--output", tmp_path / "p.html", "--sentences", "-1"), "--sentences"),
    ):
        done = run(*files, *arguments)
        assert done.returncode == 2 and done.stderr.startswith("error: ") and message in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("a", "b", "names"),
    [
        ("bert.json", "spe.json", ("bert", "spe")),
        ("bert/test.json", "spe/test.json", ("bert", "spe")),
        ("bert/run/test.json", "spe/run/test.json", ("bert", "spe")),
        ("run/test.json", "run/test.json", ("A", "B")),
    ],
)
def test_systems_are_called_by_their_files_or_by_the_folders_that_differ(a, b, names):
    assert compare._file_names(Path(a), Path(b)) == names
