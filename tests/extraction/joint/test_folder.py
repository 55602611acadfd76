"""The fine-tuned folder: written whole, read without DeepSpeed, an encoder for transformers, a start for others."""

import json
import shutil
import subprocess
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
        (folder / "SHA256SUMS").unlink()  # as folders of before
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
        (damaged("window", other_settings(lambda settings: settings.update(max_pieces="long"))), '"long"'),
        (damaged("heads", lambda folder: (folder / "extractor_heads.safetensors").unlink()), "is missing"),
        (damaged("cut", lambda folder: (folder / "model.safetensors").write_bytes(b"cut")), "damaged"),
    ]
    for folder, words in cases:
        with pytest.raises(CheckpointError, match=words):
            load_extractor(folder)


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def reordered(path):
    labels = json.loads(path.read_text())
    path.write_text(json.dumps({kind: names[::-1] for kind, names in labels.items()}, indent=2, sort_keys=True) + "\n")


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("labels.json", reordered),
        ("model.safetensors", flipped),
        ("extractor_heads.safetensors", flipped),
        ("spe_heads.safetensors", flipped),
        ("vocab.txt", flipped),
        ("config.json", lambda path: path.write_text(path.read_text().replace("0.0", "0.1"))),
    ],
)
def test_a_file_that_is_not_the_one_that_was_written_is_named(extractor_folder, tmp_path, file, change):
    folder = shutil.copytree(extractor_folder, tmp_path / "model")
    change(folder / file)
    with pytest.raises(CheckpointError, match=rf"{file} is damaged or was changed: .*SHA256SUMS; copy or export"):
        load_extractor(folder)


def test_checksums_cover_every_file_that_is_read_and_none_that_people_edit(extractor_folder, tmp_path, capsys):
    folder = shutil.copytree(extractor_folder, tmp_path / "model")
    done = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (folder / "README.md").write_text("mine")
    (folder / "notes.csv").write_text("mine")
    load_extractor(folder)
    assert capsys.readouterr().err == ""
    sums = folder / "SHA256SUMS"
    whole = sums.read_text()
    for fault, words in [
        (whole.replace("labels.json", "nothing.json"), "nothing.json is missing, which SHA256SUMS lists"),
        (
            "".join(line for line in whole.splitlines(True) if "labels" not in line),
            "labels.json, which SHA256SUMS does",
        ),
        (whole.upper(), "line 1 is not a checksum and name"),
        (whole.replace("labels.json", "9" * 256), "is not a checksum and name"),
        (whole + whole, "is not a checksum and name"),
        (whole.replace("labels.json", "../labels.json"), "is not a checksum and name"),
    ]:
        sums.write_text(fault)
        with pytest.raises(CheckpointError, match=words):
            load_extractor(folder)
    sums.unlink()
    load_extractor(folder)
    load_extractor(folder)
    assert capsys.readouterr().err.count("has no SHA256SUMS") == 1, "said, once"


def test_scores_are_added_to_a_folder_whose_checksums_are_right_at_any_moment(extractor_folder, tmp_path):
    folder = shutil.copytree(extractor_folder, tmp_path / "model")
    row = {"corpus": "test.json", "entity": 0.75, "relation": 0.5, "ent_rel": 0.25}
    stop = mock.patch("spe_dist.extraction.joint.folder.write_sums", side_effect=KeyboardInterrupt)
    with stop, pytest.raises(KeyboardInterrupt):
        add_scores(folder, {"test": row})
    assert "scores" not in load_extractor(folder).facts and [path.name for path in tmp_path.iterdir()] == ["model"]
    add_scores(folder, {"test": row})
    assert load_extractor(folder).facts["scores"]["test"]["ent_rel"] == 0.25
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("file", ["model.safetensors", "spe_heads.safetensors", "extractor_heads.safetensors"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_without_checksums_too(extractor_folder, tmp_path, file, value):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(extractor_folder, tmp_path / "model")
    (folder / "SHA256SUMS").unlink()
    tensors = load_file(folder / file)
    name = sorted(tensors)[0]
    tensors[name].view(-1)[-1] = value
    save_file(tensors, folder / file, {"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"{file}: {name} holds numbers that are not finite; "):
        load_extractor(folder)


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("config.json", {"hidden_size": 1e30}, r"hidden_size is 1e\+30, no whole number"),
        ("config.json", {"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, no whole number"),
        ("config.json", {"vocab_size": 100_000_000}, "do not fit"),
        ("config.json", {"hidden_act": ["gelu"]}, "hidden_act is .* no name"),
        ("config.json", {"pad_token_id": 10**6}, "no piece of the vocabulary"),
        ("config.json", {"layer_norm_eps": None}, "layer_norm_eps is null"),
        ("spe_config.json", {"settings": {"cnn_channels": 10**12}}, "cannot have these settings|do not fit"),
        ("spe_config.json", {"settings": {"cnn_channels": 1e30}}, "must be at most"),
        ("spe_config.json", {"settings": 3}, "settings is 3, which cannot be"),
        ("spe_config.json", {"pooler": None}, "pooler is null, which cannot be"),
        ("spe_config.json", {"encoder": True}, "encoder is true, which cannot be"),
        ("extractor.json", {"settings": {"relation_size": 1e30}}, r"relation_size is 1e\+30, which cannot be"),
        ("extractor.json", {"settings": {"relation_size": 1 << 20}}, "of another shape"),
        ("extractor.json", {"settings": {"max_pieces": True}}, "max_pieces is true, which cannot be"),
        ("extractor.json", {"settings": {"symmetric": "rs"}}, 'symmetric is "rs", which cannot be'),
        ("extractor.json", {"facts": []}, "must be objects"),
        ("labels.json", {"entity_types": ["A", "A", "B"]}, "none twice"),
    ],
)
def test_values_that_cannot_be_are_named_before_memory_is_taken(extractor_folder, tmp_path, file, change, words):
    folder = shutil.copytree(extractor_folder, tmp_path / "model")
    (folder / "SHA256SUMS").unlink()
    document = json.loads((folder / file).read_text())
    for name, value in change.items():
        document[name] = {**document[name], **value} if isinstance(value, dict) else value
    (folder / file).write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=words) as caught:
        load_extractor(folder)
    assert "\n" not in str(caught.value)
