"""The examples run from an empty folder and do what they say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from project import ROOT

EXAMPLES = ROOT / "examples"
NOTEBOOK = EXAMPLES / "extractor_and_encoder.ipynb"

pytestmark = [pytest.mark.slow, pytest.mark.examples]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of examples/text_to_scores.sh and what it printed."""
    folder = tmp_path_factory.mktemp("example") / "run"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    script = str(EXAMPLES / "text_to_scores.sh")
    done = subprocess.run([script, str(folder)], cwd=folder.parent, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder, done.stdout


def test_the_script_goes_from_raw_text_to_scores(finished):
    folder, printed = finished
    (ent_rel,) = re.findall(r"^Ent\+Rel +\S+ +\S+ +([\d.]+)% +[\d.]+ - ", printed, flags=re.MULTILINE)
    assert float(ent_rel) > 30
    for name in ("encoder/model.safetensors", "extraction/model", "extraction/scores.json", "unseen.html"):
        assert (folder / name).exists()
    records = [json.loads(line) for line in (folder / "unseen.jsonl").read_text().splitlines()]
    assert len(records) == 50 and any(record["entities"] for record in records)


def test_the_script_replaces_only_a_folder_of_its_own(tmp_path):
    (tmp_path / "thesis.tex").touch()
    done = subprocess.run([str(EXAMPLES / "text_to_scores.sh"), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 2 and "give another folder" in done.stderr
    assert (tmp_path / "thesis.tex").exists()


def test_the_notebook_runs_from_its_first_cell_to_its_last(finished):
    folder, _ = finished
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    environment = {**os.environ, "SPE_EXAMPLE": str(folder), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=EXAMPLES, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "-->" in done.stdout


def test_the_notebook_is_saved_with_its_outputs():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert all(cell["outputs"] for cell in cells[2:] if cell["cell_type"] == "code")


def test_the_page_of_metrics_explains_every_figure_that_runs_write(finished):
    folder, _ = finished
    page = (ROOT / "docs" / "metrics.md").read_text()
    explained = set(re.findall(r"`(?:heldout/|dev/)?(\w+)`", page))
    families = ("spo_accuracy_", "top1_random_", "top1_same_layout_")
    for run in ("pretraining", "extraction"):
        rows = [json.loads(line) for line in (folder / run / "metrics.jsonl").read_text().splitlines()]
        names = {name.split("/")[-1] for row in rows for name in row}
        unexplained = {name for name in names - explained if not name.startswith(families)}
        likewise = {name for name in unexplained if re.search(r"_(precision|recall|f1|accuracy|examples)$", name)}
        assert unexplained - likewise == set()
