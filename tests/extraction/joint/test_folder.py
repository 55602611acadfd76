"""The fine-tuned folder: written whole, read without DeepSpeed, an encoder for transformers, a start for others."""

import json
import shutil
from unittest import mock

import pytest
import torch

from spe_dist.errors import CheckpointError
from spe_dist.extraction.corpora.corpus import Labels, Sentence
from spe_dist.extraction.joint.examples import ExampleMaker
from spe_dist.extraction.joint.folder import add_scores, load_extractor, save_extractor
from spe_dist.extraction.predicting.stream import predict_sentences

SENTENCES = [Sentence(("a", "bc", "d", ".")), Sentence(tuple("hello world , again".split()))]


def predictions(loaded):
    maker = ExampleMaker(loaded.tokenizer, None, loaded.settings["max_pieces"])
    return list(predict_sentences(loaded.model, maker, SENTENCES))


def test_a_folder_comes_back_with_the_same_predictions(extractor_folder, tmp_path):
    first = load_extractor(extractor_folder)
    assert not first.model.training
    assert first.labels == Labels(("A", "B", "C"), ("r", "s"))
    assert (first.settings["max_pieces"], first.settings["span_size"], first.settings["cls_source"]) == (
        40,
        30,
        "state",
    )
    save_extractor(tmp_path / "again", first.model, first.tokenizer, first.labels, first.settings, {"epoch": 3})
    second = load_extractor(tmp_path / "again")
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name
    assert predictions(first) == predictions(second)
    assert any(sentence.entities for sentence in predictions(first))
    card = (tmp_path / "again" / "README.md").read_text()
    assert "| epoch | 3 |" in card and "`r`, `s`" in card


def test_the_card_of_a_fine_tuned_model_has_its_scores_for_the_hub_and_for_people(extractor_folder, tmp_path):
    from huggingface_hub import ModelCard

    first, folder = load_extractor(extractor_folder), tmp_path / "model"
    dev = {"corpus": "dev.json", "entity": 0.75, "relation": 0.5, "ent_rel": 0.25}
    facts = {"name": "conll04", "base_model": "bert-base-cased", "scores": {"dev": dev}}
    save_extractor(folder, first.model, first.tokenizer, first.labels, first.settings, facts)
    add_scores(folder, {"test": {**dev, "corpus": "test.json", "ent_rel": 0.125}})
    card = ModelCard.load(folder / "README.md")
    assert (card.data.base_model, card.data.library_name) == ("bert-base-cased", "spe-dist")
    assert card.data.model_name == "conll04" and len(card.data.eval_results) == 6
    found = {(result.dataset_split, result.metric_name): result.metric_value for result in card.data.eval_results}
    assert found["validation", "Entity F1"] == 0.75 and found["test", "Entity and relation F1"] == 0.125
    assert "| dev (dev.json) | 75.00% | 50.00% | 25.00% |" in card.text and "| test (test.json) |" in card.text
    assert load_extractor(folder).facts["scores"]["test"]["ent_rel"] == 0.125


def test_transformers_loads_the_encoder_and_the_tokenizer(extractor_folder):
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(extractor_folder)
    expected = load_extractor(extractor_folder).model.spe.encoder.state_dict()
    for name, value in expected.items():
        assert torch.equal(model.state_dict()[name], value)
    assert AutoTokenizer.from_pretrained(extractor_folder).tokenize("Hello")


def test_it_is_an_exported_folder_for_other_tools(extractor_folder):
    from spe_dist.export import SpanPairEncoder

    spe = SpanPairEncoder.from_pretrained(extractor_folder)
    assert spe.encode_pair(["a", "b", "c"], (0, 1), (2, 3)).shape == (30,)


def test_an_earlier_folder_is_replaced_and_other_folders_are_not(extractor_folder, tmp_path):
    loaded = load_extractor(extractor_folder)
    for epoch in (1, 2):
        save_extractor(tmp_path / "m", loaded.model, loaded.tokenizer, loaded.labels, loaded.settings, {"epoch": epoch})
        assert load_extractor(tmp_path / "m").facts["epoch"] == epoch
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(CheckpointError, match="not replaced"):
        save_extractor(tmp_path / "mine", loaded.model, loaded.tokenizer, loaded.labels, loaded.settings, {})
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"


def test_a_disk_that_is_full_is_one_line_and_the_earlier_model_stays(extractor_folder, tmp_path, monkeypatch):
    from safetensors import SafetensorError

    output = tmp_path / "model"
    shutil.copytree(extractor_folder, output)
    loaded = load_extractor(output)
    for error in (OSError(28, "No space left on device"), SafetensorError("I/O error: Disk quota exceeded")):
        monkeypatch.setattr("spe_dist.extraction.joint.folder.save_tensors", mock.Mock(side_effect=error))
        with pytest.raises(CheckpointError, match=r"writing the model .*model failed: .*--resume auto"):
            save_extractor(output, loaded.model, loaded.tokenizer, loaded.labels, loaded.settings, {})
    assert load_extractor(output).labels == loaded.labels
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_damaged_folders_and_others_are_told_apart(extractor_folder, tmp_path):
    def damaged(name, change):
        folder = tmp_path / name
        shutil.copytree(extractor_folder, folder)
        change(folder)
        return folder

    def other_labels(folder):
        (folder / "labels.json").write_text(json.dumps({"entity_types": ["A"], "relation_types": ["r"]}))

    def newer(folder):
        told = json.loads((folder / "extractor.json").read_text())
        (folder / "extractor.json").write_text(json.dumps(told | {"format_version": 9}))

    def other_settings(change):
        def write(folder):
            told = json.loads((folder / "extractor.json").read_text())
            change(told["settings"])
            (folder / "extractor.json").write_text(json.dumps(told))

        return write

    cases = [
        (tmp_path / "nowhere", "does not exist"),
        (extractor_folder.parent, "it is the output of a run"),
        (damaged("encoder", lambda folder: (folder / "extractor.json").unlink()), "it is an encoder"),
        (damaged("labels", other_labels), "does not fit"),
        (damaged("no_labels", lambda folder: (folder / "labels.json").write_text("[]")), "labels.json"),
        (damaged("newer", newer), "format_version=9"),
        (damaged("settings", other_settings(dict.clear)), "incomplete"),
        (damaged("no_window", other_settings(lambda settings: settings.pop("max_pieces"))), "'max_pieces'"),
        (damaged("window", other_settings(lambda settings: settings.update(max_pieces="long"))), "'long'"),
        (damaged("heads", lambda folder: (folder / "extractor_heads.safetensors").unlink()), "is missing"),
        (damaged("cut", lambda folder: (folder / "model.safetensors").write_bytes(b"cut")), "damaged"),
    ]
    for folder, words in cases:
        with pytest.raises(CheckpointError, match=words):
            load_extractor(folder)
