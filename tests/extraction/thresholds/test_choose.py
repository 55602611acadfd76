"""`spe thresholds` chooses thresholds on dev, writes, draws and keeps them; a test part chooses none."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from predicted import TEXT

from spe_dist.cli import thresholds
from spe_dist.extraction.formats import read_corpus
from spe_dist.extraction.joint.folder import add_scores, load_extractor
from spe_dist.extraction.joint.model import JointModel
from spe_dist.extraction.predicting.extractor import Extractor
from spe_dist.extraction.scoring.scores import score

LOW = 0.05


@pytest.fixture(scope="module")
def model(extractor_folder, tmp_path_factory) -> Path:
    return shutil.copytree(extractor_folder, tmp_path_factory.mktemp("own") / "model")


@pytest.fixture(scope="module")
def gold(model, tmp_path_factory) -> Path:
    """A corpus of which the model finds a part: half of what it marks from a low probability on."""
    folder = tmp_path_factory.mktemp("gold")
    records = []
    extractor = Extractor.from_pretrained(model, "cpu", bfloat16=False)
    for sentence in extractor.predict(TEXT, threshold_entities=LOW, threshold_relations=LOW):
        entities = [{"type": e.type, "start": e.start_word, "end": e.end_word} for e in sentence.entities]
        rows = {entity: number for number, entity in enumerate(sentence.entities)}
        related = [{"type": r.type, "head": rows[r.head], "tail": rows[r.tail]} for r in sentence.relations[::2]]
        records.append({"tokens": list(sentence.words), "entities": entities, "relations": related})
    for name in ("dev.json", "test.json"):
        (folder / name).write_text(json.dumps(records))
    return folder


def test_thresholds_are_chosen_on_dev_written_drawn_and_kept(model, gold, tmp_path, capsys, monkeypatch):
    read = JointModel._read
    sentences = []
    monkeypatch.setattr(
        JointModel, "_read", lambda self, batch: sentences.append(batch.n_examples) or read(self, batch)
    )
    arguments = [str(model), str(gold / "dev.json"), "--test", str(gold / "test.json"), "--device", "cpu"]
    assert thresholds.main([*arguments, "--output", str(tmp_path), "--keep"]) == 0
    said = capsys.readouterr().out
    monkeypatch.undo()
    assert sum(sentences) == 2 * read_corpus(gold / "dev.json").n_sentences  # dev and test, once each
    kept = load_extractor(model).thresholds
    assert f"best F1: --threshold_entities {kept.entities:g} --threshold_relations {kept.relations:g}" in said
    assert "which chose nothing" in said and "argmax" in said
    with open(tmp_path / "thresholds.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 99 and (tmp_path / "thresholds.png").stat().st_size > 10_000
    best = max(float(row["f1"]) for row in rows if row["of"] == "entities")
    own = Extractor.from_pretrained(model, "cpu")
    dev = read_corpus(gold / "dev.json")
    scores = score(dev, own.predict_corpus(dev))
    assert scores.entity.f1 == pytest.approx(best, abs=1e-4)
    related = max(float(row["f1"]) for row in rows if row["metric"] == "ent_rel")
    assert scores.ent_rel.f1 == pytest.approx(related, abs=1e-4)


def test_a_test_part_chooses_no_thresholds(model, gold, capsys):
    assert thresholds.main([str(model), str(gold / "test.json")]) == 2
    assert "is a test part by its name" in capsys.readouterr().err
    assert thresholds.main([str(model), str(gold / "dev.json"), "--test", str(gold / "dev.json")]) == 2
    assert "is DEV itself" in capsys.readouterr().err


def test_what_the_model_was_tested_on_chooses_no_thresholds(extractor_folder, gold, tmp_path, capsys):
    folder = shutil.copytree(extractor_folder, tmp_path / "model")
    f1s = {"entity": 0.5, "relation": 0.5, "ent_rel": 0.5}
    add_scores(folder, {"dev": {"corpus": "valid.json", **f1s}, "test": {"corpus": "dev.json", **f1s}})
    assert thresholds.main([str(folder), str(gold / "dev.json"), "--device", "cpu"]) == 2
    assert "what this model was tested on" in capsys.readouterr().err
