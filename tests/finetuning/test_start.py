"""Every kind of start: what is loaded, what is random, and what is refused."""

import json

import checkpoint_maker
import pytest
import torch

from spe_dist.config.finetuning import FinetuneConfig
from spe_dist.config.loading import resolve
from spe_dist.errors import CheckpointError, ConfigError, DataError
from spe_dist.export.checkpoint import read_checkpoint
from spe_dist.export.folder import write_folder
from spe_dist.extraction.corpora.corpus import Labels
from spe_dist.finetuning.build import extraction_settings
from spe_dist.finetuning.run import build_model
from spe_dist.finetuning.start import check_windows, language_lines, open_start, with_language
from spe_dist.utils.reading.sums import write_sums

SMALL = {"hidden_size": 32, "layers": 2, "attention_heads": 4, "intermediate_size": 48}
ALL = ("sentence encoder", "span encoder", "span pair encoder")


def config(start, **given):
    return resolve(
        [{"train": "unused", "start": None if start is None else str(start), "dropout": 0.3}, given], FinetuneConfig
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A pre-training checkpoint of ours with a query encoder and a key encoder unlike it."""
    run = tmp_path_factory.mktemp("pretraining")
    return (
        checkpoint_maker.make_checkpoint(run / "run", cls_source="pooler", pair_activation="gelu"),
        checkpoint_maker,
        run,
    )


def exported(made, folder, encoder="query", **replaced):
    if not folder.exists():
        write_folder(read_checkpoint(made.folder, encoder), folder)
    return folder


def equal(spe, expected, parts=("encoder", "span_encoder", "pair_encoder")):
    state = spe.state_dict()
    named = {name: value for name, value in expected.items() if name.split(".")[0] in parts}
    assert named
    return all(torch.equal(state[name], value) for name, value in named.items())


@pytest.mark.parametrize("kind", ["export", "checkpoint", "run"])
def test_a_pretrained_start_gives_encoder_span_and_pair_encoder_without_the_contrastive_head(made, tmp_path, kind):
    made, _, _ = made
    source = {"export": exported(made, tmp_path / "e"), "checkpoint": made.folder, "run": made.run}[kind]
    start = open_start(config(source))
    assert start.loaded == ALL and start.random == ()
    assert start.spe.contrastive_head is None and start.spe.encoder.pooler is not None
    assert equal(start.spe, made.model.spe.state_dict())
    assert start.settings["cls_source"] == "pooler" and start.settings["pair_activation"] == "gelu"
    assert (start.settings["span_size"], start.settings["layers"]) == (20, 2)
    assert start.spe.encoder.config.hidden_dropout_prob == 0.3 and start.spe.span_encoder.dropout.p == 0.3
    assert str(source) in start.summary() and "heads of the extraction" in start.summary()


def test_the_key_encoder_is_another_start_from_its_export_and_from_the_checkpoint(made, tmp_path):
    made, _, _ = made
    folder = exported(made, tmp_path / "key", "key")
    for given in ({"start": folder}, {"start": made.folder, "start_encoder": "key"}):
        start = open_start(config(**given))
        assert equal(start.spe, made.average) and "momentum encoder" in start.source


def test_without_cnn_takes_the_transformer_alone(made):
    made, _, _ = made
    start = open_start(config(made.folder, without_cnn=True, span_size=12))
    assert start.loaded == ALL[:1] and start.random == ALL[1:]
    state = made.model.spe.state_dict()
    assert equal(start.spe, {n: v for n, v in state.items() if not n.startswith("encoder.pooler")}, ("encoder",))
    assert start.spe.encoder.pooler is None and start.settings["cls_source"] == "state"
    assert start.spe.span_encoder.mlp.linear.out_features == 12


def test_what_pretraining_did_not_have_is_random(made):
    _, maker, run = made
    without_cspo = maker.make_checkpoint(run / "no_cspo", cspo=False)
    start = open_start(config(without_cspo.folder))
    assert start.loaded == ALL[:2] and start.random == ALL[2:]
    assert equal(start.spe, without_cspo.model.spe.state_dict(), ("encoder", "span_encoder"))


def test_a_bert_checkpoint_gives_the_encoder_alone(made, tmp_path):
    made, _, _ = made
    folder = exported(made, tmp_path / "bert")
    for name in ("spe_config.json", "spe_heads.safetensors"):  # what is left is a plain BertModel
        (folder / name).unlink()
    start = open_start(config(folder, cnn_channels=5, span_size=11))
    assert start.loaded == ALL[:1] and start.random == ALL[1:]
    assert equal(start.spe, {n: v for n, v in made.model.spe.state_dict().items() if "pooler" not in n}, ("encoder",))
    assert len(start.tokenizer) == len(made.tokenizer)


def test_a_fine_tuned_folder_is_a_start_and_so_is_its_run(extractor_folder):
    from spe_dist.extraction.joint.folder import load_extractor

    expected = load_extractor(extractor_folder).model.spe.state_dict()
    for source in (extractor_folder, extractor_folder.parent):
        start = open_start(config(source))
        assert start.loaded == ALL and equal(start.spe, expected)


def test_no_start_is_random_by_seed(made, tmp_path):
    made, _, _ = made
    exported(made, tmp_path / "e")
    starts = [open_start(config(None, tokenizer=str(tmp_path / "e"), seed=seed, **SMALL)) for seed in (1, 1, 2)]
    states = [start.spe.state_dict() for start in starts]
    assert starts[0].loaded == () and starts[0].random == ALL
    assert starts[0].spe.encoder.config.vocab_size == len(made.tokenizer)
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name])
    assert not torch.equal(states[0]["pair_encoder.input_linear.weight"], states[2]["pair_encoder.input_linear.weight"])


def test_opening_a_start_leaves_the_random_numbers_alone(made):
    before = torch.get_rng_state()
    open_start(config(made[0].folder))
    assert torch.equal(before, torch.get_rng_state())


def test_starts_that_cannot_be_used_say_why(made, tmp_path, extractor_folder):
    made, _, _ = made
    folder = exported(made, tmp_path / "query")
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(str, range(50))]) + "\n")
    run = tmp_path / "finetuning"
    (run / "checkpoints" / "step_00000001").mkdir(parents=True)
    (run / "checkpoints" / "step_00000001" / "state.json").write_text("{}")
    plain = tmp_path / "plain"
    exported(made, plain)
    for name in ("spe_config.json", "spe_heads.safetensors"):
        (plain / name).unlink()
    cases = [
        ({"start": tmp_path / "nowhere"}, CheckpointError, "nowhere does not exist"),
        ({"start": tmp_path}, ConfigError, f"no config.json at '{tmp_path}'"),
        ({"start": folder, "start_encoder": "key"}, ConfigError, "--encoder key"),
        ({"start": plain, "start_encoder": "key"}, ConfigError, "no momentum encoder"),
        ({"start": folder, "tokenizer": str(vocabulary)}, DataError, "another vocabulary"),
        ({"start": plain, "tokenizer": str(vocabulary)}, DataError, "embeds"),
        ({"start": folder, "span_size": 64}, ConfigError, "span_size=64, but"),
        ({"start": run}, CheckpointError, "not finished"),
    ]
    for given, error, words in cases:
        with pytest.raises(error, match=words):
            open_start(config(**given))


@pytest.fixture(scope="module")
def german(tmp_path_factory):
    """A pre-training checkpoint whose shards were made with --language de, and its export."""
    run = tmp_path_factory.mktemp("german")
    made = checkpoint_maker.make_checkpoint(run / "run", language="de")
    return {"checkpoint": made.folder, "export": exported(made, run / "export")}


@pytest.mark.parametrize("kind", ["checkpoint", "export"])
def test_the_language_of_the_start_is_that_of_fine_tuning_and_of_its_model_unless_one_is_given(german, kind):
    def settled(**given):
        asked = config(german[kind], **given)
        start = open_start(asked)
        found = with_language(asked, start)
        assert extraction_settings(found, 40)["language"] == found.data.language
        return found.data.language, language_lines(found, start)

    assert settled() == ("de", ["language: de, as the start was trained"])
    for language in ("auto", "en"):
        warning = f"warning: language={language}, as asked, but the start {german[kind]} was trained on text read as de"
        assert settled(language=language) == (language, [warning])


def test_a_start_without_a_language_leaves_it_open(made, extractor_folder):
    for source in (made[0].folder, extractor_folder):
        asked = config(source)
        start = open_start(asked)
        found = with_language(asked, start)
        assert (found.data.language, language_lines(found, start)) == ("auto", [])


def test_the_card_and_the_description_of_an_export_name_its_language(german):
    folder = german["export"]
    assert json.loads((folder / "spe_config.json").read_text())["language"] == "de"
    assert "| language of the text | de |" in (folder / "README.md").read_text()
    document = json.loads((folder / "spe_config.json").read_text()) | {"language": ["de"]}
    (folder / "spe_config.json").write_text(json.dumps(document))
    write_sums(folder)
    with pytest.raises(CheckpointError, match="language is"):
        open_start(config(folder))


def test_a_window_fits_the_encoders_positions(extractor_folder):
    start = open_start(config(extractor_folder))
    assert check_windows(config(extractor_folder), start) == 40
    assert check_windows(config(extractor_folder, max_pieces=20, context_pieces=12), start) == 20
    for given, words in (
        ({"max_pieces": 41}, "40 positions"),
        ({"max_pieces": 4}, "no pieces for words"),
        ({"context_pieces": 33}, "context_pieces=33"),
    ):
        with pytest.raises(ConfigError, match=words):
            check_windows(config(extractor_folder, **given), start)


def test_a_damaged_export_is_refused(made, tmp_path):
    folder = exported(made[0], tmp_path / "e")
    told = json.loads((folder / "spe_config.json").read_text())
    (folder / "spe_config.json").write_text(json.dumps(told | {"format_version": 99}))
    write_sums(folder)
    with pytest.raises(CheckpointError, match="format_version=99"):
        open_start(config(folder))


def test_contexts_have_a_copy_of_a_loaded_span_encoder_and_draws_of_their_own_otherwise(made, tmp_path):
    made, _, _ = made
    folder = exported(made, tmp_path / "e")
    for start in (folder, None):
        settings = config(start, tokenizer=str(folder), **({} if start else SMALL))
        model = build_model(settings, Labels(("a",), ()), open_start(settings))
        entities, contexts = model.spe.span_encoder.state_dict(), model.context_encoder.state_dict()
        alike = [torch.equal(entities[name], contexts[name]) for name in ("conv_layers.0.weight", "mlp.linear.weight")]
        assert alike == [start is not None] * 2
    shared = config(folder, context_encoder="shared")
    assert build_model(shared, Labels(("a",), ()), open_start(shared)).context_encoder is None
