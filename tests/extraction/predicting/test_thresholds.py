"""Thresholds in the Python call, on the command line and in the model folder; `spe thresholds` chooses them on dev."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from predicted import TEXT, parse_records

from spe_dist.cli import thresholds
from spe_dist.errors import CheckpointError, ConfigError
from spe_dist.extraction.formats import read_corpus
from spe_dist.extraction.joint.folder import keep_thresholds, load_extractor
from spe_dist.extraction.joint.thresholds import ARGMAX, Thresholds, chosen_thresholds
from spe_dist.extraction.predicting.extractor import Extractor
from spe_dist.extraction.scoring.scores import score

LOW, HIGH = 0.05, 0.3


@pytest.fixture(scope="module")
def model(extractor_folder, tmp_path_factory) -> Path:
    return shutil.copytree(extractor_folder, tmp_path_factory.mktemp("own") / "model")


@pytest.fixture(scope="module")
def extractor(model) -> Extractor:
    return Extractor.from_pretrained(model, "cpu", bfloat16=False)


@pytest.fixture(scope="module")
def gold(extractor, tmp_path_factory) -> Path:
    """A corpus of which the model finds a part: half of what it marks from a low probability on."""
    folder = tmp_path_factory.mktemp("gold")
    records = []
    for sentence in extractor.predict(TEXT, threshold_entities=LOW, threshold_relations=LOW):
        entities = [{"type": e.type, "start": e.start_word, "end": e.end_word} for e in sentence.entities]
        rows = {entity: number for number, entity in enumerate(sentence.entities)}
        related = [{"type": r.type, "head": rows[r.head], "tail": rows[r.tail]} for r in sentence.relations[::2]]
        records.append({"tokens": list(sentence.words), "entities": entities, "relations": related})
    for name in ("dev.json", "test.json"):
        (folder / name).write_text(json.dumps(records))
    return folder


def test_a_call_with_a_low_threshold_finds_more_and_one_with_a_high_one_less(extractor):
    def found(**options):
        sentences = extractor.predict(TEXT, **options)
        return {e for s in sentences for e in s.entities}, {r for s in sentences for r in s.relations}

    entities, relations = found()
    more, more_related = found(threshold_entities=LOW, threshold_relations=LOW)
    less, less_related = found(threshold_entities=HIGH, threshold_relations=HIGH)
    assert len(more) > len(entities) > 0 and len(more_related) > len(relations) > 0
    assert less <= more and all(e.probability >= HIGH for e in less) and less_related < more_related
    assert found(threshold_entities="argmax", threshold_relations="argmax") == (entities, relations)


@pytest.mark.parametrize("value", [0.0, 1.5, -1, True, "low"])
def test_what_is_no_threshold_is_refused_with_the_range(extractor, value):
    with pytest.raises(ConfigError, match=r"threshold_relations=.* from 0\.01 to 1, or 'argmax'"):
        extractor.predict(TEXT, threshold_relations=value)


def test_a_call_that_names_no_threshold_takes_that_of_the_folder():
    stored = Thresholds(0.4, None)
    assert chosen_thresholds(None, 0.2, stored) == Thresholds(0.4, 0.2)
    assert chosen_thresholds("argmax", None, stored) == ARGMAX


def test_thresholds_of_a_folder_hold_until_others_are_kept(extractor_folder, tmp_path, extractor):
    folder = shutil.copytree(extractor_folder, tmp_path / "model")
    assert load_extractor(folder).thresholds == ARGMAX
    keep_thresholds(folder, Thresholds(LOW, HIGH), "dev.json")
    kept = Extractor.from_pretrained(folder, "cpu", bfloat16=False)
    assert kept.thresholds == Thresholds(LOW, HIGH)
    assert kept.predict(TEXT) == extractor.predict(TEXT, threshold_entities=LOW, threshold_relations=HIGH)
    assert "entities 0.05, relations 0.3 (chosen on dev.json)" in (folder / "README.md").read_text()
    document = json.loads((folder / "extractor.json").read_text())
    (folder / "SHA256SUMS").unlink()
    for wrong in ({"entities": 2}, {"words": 0.5}, [0.5]):
        (folder / "extractor.json").write_text(json.dumps({**document, "thresholds": wrong}))
        with pytest.raises(CheckpointError, match=r"extractor\.json.*threshold"):
            load_extractor(folder)


def test_predict_takes_thresholds_and_says_so(run, text_file, extractor):
    status, out, err = run(text_file, "--threshold_entities", LOW, "--threshold_relations", "argmax")
    expected = extractor.predict_files(text_file, threshold_entities=LOW)
    assert status == 0 and [r["entities"] for r in parse_records(out)] == [s.to_dict()["entities"] for s in expected]
    assert "thresholds: entities 0.05, relations argmax" in err
    _, _, err = run(text_file, "--threshold_entities", 1)
    assert "no entity has a probability of 1 or more; lower --threshold_entities" in err
    status, _, err = run(text_file, "--threshold_entities", 2)
    assert status == 2 and "2 is too large; give at most 1" in err
    status, _, err = run(text_file, "--entities", "given", "--threshold_entities", LOW)
    assert status == 2 and "those of --entities given stay" in err


def test_thresholds_are_chosen_on_dev_written_drawn_and_kept(model, gold, tmp_path, capsys):
    arguments = [str(model), str(gold / "dev.json"), "--test", str(gold / "test.json"), "--device", "cpu"]
    assert thresholds.main([*arguments, "--output", str(tmp_path), "--keep"]) == 0
    said = capsys.readouterr().out
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
    keep_thresholds(model, ARGMAX, "nothing")


def test_a_test_part_chooses_no_thresholds(model, gold, capsys):
    assert thresholds.main([str(model), str(gold / "test.json")]) == 2
    assert "is a test part by its name" in capsys.readouterr().err
    assert thresholds.main([str(model), str(gold / "dev.json"), "--test", str(gold / "dev.json")]) == 2
    assert "is DEV itself" in capsys.readouterr().err


def test_what_the_model_was_tested_on_chooses_no_thresholds(extractor_folder, gold, tmp_path, capsys):
    from spe_dist.extraction.joint.folder import add_scores

    folder = shutil.copytree(extractor_folder, tmp_path / "model")
    f1s = {"entity": 0.5, "relation": 0.5, "ent_rel": 0.5}
    add_scores(folder, {"dev": {"corpus": "valid.json", **f1s}, "test": {"corpus": "dev.json", **f1s}})
    assert thresholds.main([str(folder), str(gold / "dev.json"), "--device", "cpu"]) == 2
    assert "what this model was tested on" in capsys.readouterr().err
