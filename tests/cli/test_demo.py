"""`spe demo`: the folders it empties, the commands it runs, and one whole demo."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys

import pytest

from spe_dist.cli import demo
from spe_dist.config.presets import FINETUNING, PRETRAINING
from spe_dist.demo.findings import CLAIMS
from spe_dist.errors import ConfigError


def test_only_an_earlier_demo_or_an_empty_folder_is_emptied(tmp_path):
    folder = tmp_path / "demo"
    demo.empty(folder)
    (folder / "corpus").mkdir()
    assert demo.is_demo(folder)
    demo.empty(folder)
    assert not (folder / "corpus").exists() and demo.is_demo(folder)
    (folder / demo.RECORD).unlink()
    with pytest.raises(ConfigError, match="holds no earlier demo"):
        demo.empty(folder)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ConfigError, match="holds no earlier demo"):
        demo.empty(file)


def test_settings_and_precision_reach_the_trainings(tmp_path):
    commands = {stage.name: stage.command for stage in demo.plan(tmp_path, 4, "bfloat16", ["--cache_dir", "a b"])}
    assert commands["pretraining"][:3] == ["deepspeed", "--num_gpus", "4"]
    assert commands["pretraining"][-4:] == ["--precision", "bfloat16", "--cache_dir", "a b"]
    assert commands["finetuning"][-2:] == ["--precision", "bfloat16"]
    of_preset = demo.plan(tmp_path, 2, demo.PRESET_PRECISION, [])
    assert not any("--precision" in stage.command for stage in of_preset)
    assert all(preset["demo"]["precision"] == demo.PRESET_PRECISION for preset in (PRETRAINING, FINETUNING))


def test_a_foreign_folder_is_an_error_in_one_line(tmp_path, capsys):
    (tmp_path / "thesis.tex").touch()
    assert demo.main(["--output", str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("error: ") and shown.err.count("\n") == 1
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.distributed
@pytest.mark.long
@pytest.mark.timeout(1_700)
def test_the_whole_demo_beats_every_yardstick_and_ends_in_scores_and_a_page(tmp_path):
    """As `make pretrain` runs it, but from a foreign folder; all that its last lines claim and name is there."""
    command = [sys.executable, "-m", "spe_dist", "demo", "--output", "d"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1_600)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "d"
    shown = done.stdout.splitlines()
    assert [line for line in shown if line.startswith("[7/7]")]
    assert len([line for line in shown if line.startswith("$ ")]) == 7
    assert len(shown) < 80, "a screen or two, not a log"
    for claim in CLAIMS:
        (line,) = (line for line in shown if line.startswith(claim.label))
        assert line.endswith(" learned"), line
    (f1,) = (line for line in shown if line.startswith("F1: "))
    entity, relation, _ = map(float, re.findall(r"([0-9.]+)%", f1))
    assert entity > 60 and relation > 50
    for line in shown:
        place = line.split()[0] if line.startswith("  d/") else None
        assert place is None or (tmp_path / place).exists(), line
    page = (folder / "unseen.html").read_text(encoding="utf-8")
    records = list(map(json.loads, (folder / "unseen.jsonl").read_text(encoding="utf-8").splitlines()))
    found = [entity["text"] for record in records for entity in record["entities"]]
    assert len(found) > len(records) and all(html.escape(text) in page for text in found)
    stages = json.loads((folder / demo.RECORD).read_text())["stages"]
    assert list(stages) == ["corpus", "shards", "pretraining", "export", "finetuning", "score", "prediction"]
    assert all(stage["seconds"] > 0 for stage in stages.values())
