"""Thresholds in the Python call, on the command line of `spe predict` and in the model folder."""

from __future__ import annotations

import json
import shutil

import pytest
from predicted import TEXT, parse_records

from spe_dist.errors import CheckpointError, ConfigError
from spe_dist.extraction.joint.folder import keep_thresholds, load_extractor
from spe_dist.extraction.joint.thresholds import ARGMAX, Thresholds, chosen_thresholds
from spe_dist.extraction.predicting.extractor import Extractor

LOW, HIGH = 0.05, 0.3


@pytest.fixture(scope="module")
def extractor(extractor_folder) -> Extractor:
    return Extractor.from_pretrained(extractor_folder, "cpu", bfloat16=False)


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
    assert kept.thresholds == Thresholds(LOW, HIGH) and "thresholds of entities 0.05, relations 0.3" in repr(kept)
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
