"""Exported folders: plain BertModels for transformers, SPE beside them, the same numbers as the masters."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from project import ROOT
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, BertForMaskedLM, BertModel

from spe_dist.config.pretraining import ModelConfig
from spe_dist.distributed.fragments.tensors import read_whole
from spe_dist.errors import CheckpointError, ConfigError, DataError
from spe_dist.export import SpanPairEncoder, load_pretraining_model, save_pretraining_model
from spe_dist.export.checkpoint import read_checkpoint
from spe_dist.export.folder import write_folder
from spe_dist.model.loading import load_encoder
from spe_dist.utils.files import check_free_name

CLOSE = {"atol": 1e-5, "rtol": 0}
SENTENCES = ["Anna Berg moved to Oslo .".split(), "the city council of Lund heads a choir".split(), ["Lund"]]
SPANS = [[(0, 2), (4, 5)], [(2, 3), (0, 8), (4, 4)], []]
PAIRS = [[((0, 2), (4, 5)), ((0, 1), (1, 6))], [((0, 2), (2, 8))], []]


@pytest.fixture
def export(checkpoints, tmp_path):
    """Makes a checkpoint and exports it; returns what was made and the folder."""

    def make(encoder="query", **settings):
        made = checkpoints.make_checkpoint(tmp_path / "run", **settings)
        write_folder(read_checkpoint(made.run, encoder), tmp_path / encoder)
        return made, tmp_path / encoder

    return make


def plain_vectors(spe, tokenizer, words, pair):
    """States, span vectors and pair vector by definition: one sentence, one span at a time, float32."""
    pieces = tokenizer(words, is_split_into_words=True)
    first_pieces = [pieces.word_ids().index(number) for number in range(len(words))]
    ids = torch.tensor(pieces["input_ids"])
    bert = BertModel(spe.encoder.config).eval()
    missing = bert.load_state_dict(spe.encoder.state_dict(), strict=False).missing_keys
    assert all(name.startswith("pooler") for name in missing)
    with torch.no_grad():
        output = bert(ids[None])
        states = output.last_hidden_state[0]
        (a, b), (c, d) = pair
        spans = [(0, a), (a, b), (b, c), (c, d), (d, len(words))]
        vectors = [
            spe.span_encoder(states[first_pieces][start:end], torch.tensor([0, end - start]))[0] for start, end in spans
        ]
        cls = states[:1] if spe.encoder.pooler is None else output.pooler_output
        return states, torch.stack(vectors), spe.pair_encoder(torch.stack(vectors)[None], cls)[0]


@pytest.mark.parametrize("cls_source", ["state", "pooler"])
def test_transformers_loads_the_folder_as_a_plain_bert_model(export, cls_source):
    made, folder = export(cls_source=cls_source)
    model, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert type(model) is BertModel
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    masters = made.model.spe.encoder.state_dict()
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in masters.items())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.tokenize("Anna council") == ["Anna", "coun", "##cil"]
    states = model(**tokenizer("Anna moved to Oslo .", return_tensors="pt")).last_hidden_state
    expected, _, _ = plain_vectors(made.model.spe, tokenizer, "Anna moved to Oslo .".split(), ((0, 1), (3, 4)))
    torch.testing.assert_close(states[0], expected, **CLOSE)


@pytest.mark.parametrize("given", [{}, {"mlm_decoder": "random", "tbo": False, "spo": False, "cspo": False}])
def test_with_masked_language_modelling_transformers_loads_the_folder_with_its_head(export, given):
    made, folder = export(mlm=True, **given)
    model, info = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert type(model) is BertForMaskedLM and not info["missing_keys"] and not info["mismatched_keys"]
    assert all(name.startswith("bert.pooler.") for name in info["unexpected_keys"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    logits = model(**tokenizer("Anna [MASK] to Oslo .", return_tensors="pt")).logits[0]
    plain = AutoModel.from_pretrained(folder)
    assert type(plain) is BertModel
    states = plain(**tokenizer("Anna [MASK] to Oslo .", return_tensors="pt")).last_hidden_state[0]
    torch.testing.assert_close(logits, made.model.mlm_head(states), **CLOSE)
    again = load_pretraining_model(folder)
    assert again.state_dict().keys() == made.model.state_dict().keys()
    assert all(torch.equal(again.state_dict()[name], value) for name, value in made.model.state_dict().items())
    assert SpanPairEncoder.from_pretrained(folder).encode(SENTENCES).word_states[0].shape == (6, 32)


@pytest.mark.parametrize("cls_source", ["state", "pooler"])
def test_word_span_and_pair_vectors_equal_a_plain_forward_of_the_masters(export, cls_source):
    made, folder = export(cls_source=cls_source)
    spe = SpanPairEncoder.from_pretrained(folder)
    encoded = spe.encode(SENTENCES, spans=SPANS, pairs=PAIRS, batch_sentences=2)
    assert [len(v) for v in encoded.span_vectors] == [2, 3, 0] and [len(v) for v in encoded.pair_vectors] == [2, 1, 0]
    assert [len(v) for v in encoded.word_states] == [6, 8, 1]
    for number in (0, 1):
        for row, pair in enumerate(PAIRS[number]):
            states, five, expected = plain_vectors(made.model.spe, made.tokenizer, SENTENCES[number], pair)
            torch.testing.assert_close(encoded.pair_vectors[number][row], expected, **CLOSE)
            torch.testing.assert_close(encoded.cls[number], states[0], **CLOSE)
            s1 = spe.encode([SENTENCES[number]], spans=[[pair[0]]]).span_vectors[0][0]
            torch.testing.assert_close(s1, five[1], **CLOSE)
    torch.testing.assert_close(spe.encode_pair(SENTENCES[0], *PAIRS[0][1]), encoded.pair_vectors[0][1], **CLOSE)


def test_exported_weights_are_the_masters_and_cast_to_the_weights_of_training(export):
    made, folder = export()
    model = load_pretraining_model(folder)
    masters = read_whole(made.folder, "weights")
    assert model.state_dict().keys() == masters.keys()
    assert all(torch.equal(model.state_dict()[name], masters[name]) for name in masters)
    for dtype in (torch.bfloat16, torch.float16):
        in_training = made.model.state_dict()
        assert all(torch.equal(t, in_training[n].to(dtype)) for n, t in model.to(dtype).state_dict().items())
        model = load_pretraining_model(folder)


def test_key_export_holds_the_average(export):
    made, folder = export("key")
    spe = SpanPairEncoder.from_pretrained(folder)
    assert all(torch.equal(spe.module.state_dict()[name], tensor) for name, tensor in made.average.items())
    with pytest.raises(CheckpointError, match="tbo_head"):
        load_pretraining_model(folder)
    assert "momentum" in (folder / "README.md").read_text()


def test_no_folder_of_the_training_machine_is_told(checkpoints, tmp_path):
    made = checkpoints.make_checkpoint(
        tmp_path / "run", encoder="/home/anna/own-bert", tokenizer="/home/anna/vocab.txt"
    )
    write_folder(read_checkpoint(made.folder), tmp_path / "out")
    told = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert not [name for name, content in told.items() if b"anna" in content]
    assert b"own-bert" in told["README.md"]


def test_the_card_is_one_that_the_hub_reads(checkpoints, tmp_path):
    from huggingface_hub import ModelCard

    for encoder, base in (("bert-base-cased", "bert-base-cased"), ("/data/own-bert", None), (None, None)):
        folder = tmp_path / f"export-of-{str(encoder).rpartition('/')[2]}"
        made = checkpoints.make_checkpoint(tmp_path / f"run-{folder.name}", encoder=encoder)
        write_folder(read_checkpoint(made.folder), folder)
        data = ModelCard.load(folder / "README.md").data
        assert data.base_model == base, encoder
        assert (data.library_name, data.pipeline_tag) == ("transformers", "feature-extraction")
        assert data.license == "apache-2.0" and "relation-extraction" in data.tags


@pytest.mark.parametrize(
    "off", [{"tbo": False}, {"spo": False}, {"cspo": False}, {"spo": False, "cspo": False}, {"contrastive_head": False}]
)
def test_models_without_some_parts_are_exported_and_loaded(export, off):
    made, folder = export(**off)
    assert not AutoModel.from_pretrained(folder, output_loading_info=True)[1]["missing_keys"]
    assert load_pretraining_model(folder).state_dict().keys() == made.model.state_dict().keys()
    spe = SpanPairEncoder.from_pretrained(folder)
    assert len(spe.encode(SENTENCES).word_states) == 3
    if spe.module.pair_encoder is None:
        with pytest.raises(ConfigError, match="no span pair encoder"):
            spe.encode(SENTENCES, pairs=PAIRS)


def test_pooler_of_the_start_is_carried_along_and_a_seeded_one_is_marked(checkpoints, tmp_path):
    for trained, word in ((True, "start"), (False, "untrained")):
        made = checkpoints.make_checkpoint(tmp_path / word, pooler_trained=trained)
        write_folder(read_checkpoint(made.folder), tmp_path / f"{word}_export")
        start = load_file(made.folder / "start" / "pooler.safetensors")
        pooler = AutoModel.from_pretrained(tmp_path / f"{word}_export").pooler.state_dict()
        assert all(torch.equal(pooler[name], tensor) for name, tensor in start.items())
        again = load_encoder(str(tmp_path / f"{word}_export"), ModelConfig(), 0, seed=0)
        assert again.pooler_trained == trained
        assert f'"origin": "{word}"' in (tmp_path / f"{word}_export" / "spe_config.json").read_text()
        assert ("untrained" in (tmp_path / f"{word}_export" / "README.md").read_text()) is not trained


def test_a_changed_model_is_saved_and_loaded_again(export, tmp_path):
    _, folder = export()
    spe = SpanPairEncoder.from_pretrained(folder)
    with torch.no_grad():
        spe.module.pair_encoder.score_linear.weight.mul_(-2)
    spe.save_pretrained(tmp_path / "again")
    again = SpanPairEncoder.from_pretrained(tmp_path / "again")
    assert all(torch.equal(t, again.module.state_dict()[n]) for n, t in spe.module.state_dict().items())
    before, after = (model.encode(SENTENCES, pairs=PAIRS).pair_vectors for model in (spe, again))
    torch.testing.assert_close(after, before)
    pooler = [AutoModel.from_pretrained(path).pooler.dense.weight for path in (folder, tmp_path / "again")]
    assert torch.equal(*pooler)


@pytest.mark.parametrize("given", [{}, {"mlm": True}])
def test_heads_of_pre_training_are_saved_again_as_they_came(export, tmp_path, given):
    made, folder = export(**given)
    SpanPairEncoder.from_pretrained(folder).save_pretrained(tmp_path / "again")
    config, again_config = (json.loads((of / "config.json").read_text()) for of in (folder, tmp_path / "again"))
    assert config["architectures"] == again_config["architectures"]
    again = load_pretraining_model(tmp_path / "again").state_dict()
    assert again.keys() == made.model.state_dict().keys()
    assert all(torch.equal(again[name], value) for name, value in made.model.state_dict().items())


def test_torchs_defaults_do_not_change_what_is_loaded(export):
    _, folder = export()
    plain = SpanPairEncoder.from_pretrained(folder).module.state_dict()
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        module = SpanPairEncoder.from_pretrained(folder).module
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    assert all(tensor.dtype == plain[name].dtype for name, tensor in module.state_dict().items())
    assert all(torch.equal(tensor, plain[name]) for name, tensor in module.state_dict().items())


def test_a_model_in_memory_is_saved_with_its_settings(checkpoints, tmp_path):
    made = checkpoints.make_checkpoint(tmp_path / "run")
    save_pretraining_model(made.model, made.config, made.tokenizer, tmp_path / "export")
    model = load_pretraining_model(tmp_path / "export")
    assert all(torch.equal(t, model.state_dict()[n]) for n, t in made.model.state_dict().items())
    assert SpanPairEncoder.from_pretrained(tmp_path / "export").encode_pair(SENTENCES[0], (0, 1), (2, 3)).shape == (20,)


def test_encoding_leaves_mode_gradients_and_random_numbers_alone(export):
    _, folder = export()
    state = torch.get_rng_state()
    spe = SpanPairEncoder.from_pretrained(folder)
    assert torch.equal(torch.get_rng_state(), state)
    spe.module.train()
    first, second = (spe.encode(SENTENCES, pairs=PAIRS).pair_vectors[0] for _ in range(2))
    assert spe.module.training and torch.equal(first, second) and not first.requires_grad
    assert copy.deepcopy(spe).encode(SENTENCES).word_states[0].shape == (6, 32)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"spans": [[(4, 9)], [], []]}, "does not lie in sentence 0"),
        ({"spans": [[]]}, "1 sentences for 3"),
        ({"pairs": [[], [((3, 5), (4, 6))], []]}, "sentence 1"),
        ({"pairs": [[], [((4, 5), (0, 2))], []]}, "before the second"),
        ({"spans": [(0, 2), [], []]}, r"spans of sentence 0 are \(0, 2\); give spans such as"),
        ({"spans": [[(0, "2")], [], []]}, "spans of sentence 0 are"),
        ({"pairs": [[], [(4, 5)], []]}, "pairs of sentence 1 are .*; give pairs of spans such as"),
    ],
)
def test_impossible_spans_are_errors_that_name_the_sentence(export, asked, message):
    _, folder = export()
    with pytest.raises(DataError, match=message):
        SpanPairEncoder.from_pretrained(folder).encode(SENTENCES, **asked)


def test_spans_may_be_arrays(export):
    spe = SpanPairEncoder.from_pretrained(export()[1])
    of_tuples, of_arrays = (
        spe.encode(SENTENCES[:1], spans=[spans]).span_vectors[0] for spans in (SPANS[0], np.array(SPANS[0]))
    )
    assert torch.equal(of_tuples, of_arrays)


@pytest.mark.parametrize("batch_sentences", [0, -1])
def test_batches_without_sentences_are_refused(export, batch_sentences):
    with pytest.raises(ConfigError, match=f"batch_sentences={batch_sentences} must be 1 or more"):
        SpanPairEncoder.from_pretrained(export()[1]).encode(SENTENCES, batch_sentences=batch_sentences)


def test_sentences_past_the_encoder_and_strings_are_errors(export):
    _, folder = export()
    spe = SpanPairEncoder.from_pretrained(folder)
    with pytest.raises(DataError, match="sentence 1 has words that are not strings"):
        spe.encode([["Lund"], [1, 2]])
    with pytest.raises(DataError, match="split it"):
        spe.encode([["x"] * 600])
    with pytest.raises(DataError, match="into words"):
        spe.encode(["Anna moved"])
    unknown = spe.encode([["Anna", "\u200b\x00", "\u4e00"]]).word_states[0]
    assert unknown.shape == (3, 32), "words without a piece are unknown words, not lost"


def test_damaged_exports_are_named(export):
    _, folder = export()
    heads = folder / "spe_heads.safetensors"
    whole = heads.read_bytes()
    heads.write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match="spe_heads"):
        SpanPairEncoder.from_pretrained(folder)
    heads.unlink()
    with pytest.raises(CheckpointError, match="missing"):
        SpanPairEncoder.from_pretrained(folder)
    with pytest.raises(CheckpointError, match="not an exported folder"):
        SpanPairEncoder.from_pretrained(folder.parent)


def test_an_exported_folder_is_used_without_deepspeed(export):
    _, folder = export()
    program = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name.split('.')[0] == 'deepspeed': raise AssertionError('deepspeed is imported')\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from spe_dist import SpanPairEncoder\n"
        f"spe = SpanPairEncoder.from_pretrained({str(folder)!r})\n"
        "print(tuple(spe.encode_pair('Anna moved to Oslo'.split(), (0, 1), (3, 4)).shape))\n"
    )
    root = ROOT
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() == "(20,)", done.stderr


def test_the_current_folder_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (".", str(tmp_path)):
        with pytest.raises(CheckpointError, match="is the current folder"):
            check_free_name(Path(name), False, "spe_config.json")


def test_a_disk_that_fills_up_meanwhile_is_one_line_and_leaves_nothing(checkpoints, tmp_path):
    run = checkpoints.make_checkpoint(tmp_path / "run").run
    for name, option in (("folder", []), ("file", ["--torch"])):
        command = f'ulimit -f 20; exec "$0" -m spe_dist export "$@" {tmp_path / name}'
        arguments = ["bash", "-c", command, sys.executable, str(run), *option]
        done = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith("error: ") and f"{tmp_path / name} cannot be written (" in done.stderr
        assert done.stderr.count("\n") == 1 and {path.name for path in tmp_path.iterdir()} == {"run"}
