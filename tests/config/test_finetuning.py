"""Settings of fine-tuning: presets and checks."""

from typing import get_args, get_type_hints

import pytest

from spe_dist.config.finetuning import DataConfig, FinetuneConfig
from spe_dist.config.loading import leaves, load_config, load_yaml, resolve, to_yaml
from spe_dist.config.presets import FINETUNING, PRETRAINING
from spe_dist.errors import ConfigError
from spe_dist.extraction.formats import FORMATS


def load(preset=None, **given):
    given = {"train": "train.json", "start": "bert-base-cased", **given}
    config = load_config(preset=preset, yaml_file=None, given=given, config_class=FinetuneConfig)
    config.require_inputs()
    return config


def test_every_setting_has_a_help_text():
    assert all(leaf.help for leaf in leaves(FinetuneConfig).values())


@pytest.mark.parametrize("preset", [None, *FINETUNING])
def test_defaults_and_presets_are_valid_and_what_would_not_be_is_refused(preset):
    config, known = load(preset), leaves(FinetuneConfig)
    for name, value in FINETUNING.get(preset, {}).items():
        assert getattr(getattr(config, known[name].section), name) == value
    config.validate()
    for given in ({"train_share": 0}, {"layer_decay": 1.5}, {"cnn_kernels": (0,)}, {"train": None}):
        with pytest.raises(ConfigError, match=next(iter(given))):
            load(preset, **given)


def test_the_format_of_corpora_can_be_any_that_is_read():
    assert set(get_args(get_type_hints(DataConfig)["format"])) == {"auto", *FORMATS}


def test_a_preset_with_an_unknown_setting_is_refused(monkeypatch):
    monkeypatch.setitem(FINETUNING, "small", {**FINETUNING["small"], "epoch": 3})
    with pytest.raises(ConfigError, match=r"'epoch'.*'epochs'"):
        load("small")


def test_defaults_and_paper_preset_hold_the_methods_values():
    for config in (load(), load("paper")):
        rates = (config.optimizer.learning_rate, config.optimizer.head_learning_rate, config.optimizer.layer_decay)
        assert rates == (2.5e-5, 2.5e-5, 0.9)
        assert (config.optimizer.warmup_fraction, config.optimizer.weight_decay) == (0.2, 0.01)
        assert (config.train.batch_sentences, config.train.epochs, config.model.dropout) == (32, 200, 0.1)
        assert (config.sampling.gold_epochs, config.sampling.gold_decay) == (5, 3)


def test_a_config_comes_back_from_its_yaml(tmp_path):
    config = load("small", symmetric="married_to,knows", train_share="0.1", without_cnn="true")
    assert config.data.symmetric == ("married_to", "knows")
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert resolve([load_yaml(tmp_path / "config.yaml", FinetuneConfig)], FinetuneConfig) == config


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"train": None}, ["--train"]),
        ({"start": None}, ["start=none", "--tokenizer"]),
        ({"train_share": 0}, ["train_share=0"]),
        ({"train_share": 1.5}, ["train_share=1.5"]),
        ({"layer_decay": 0}, ["layer_decay"]),
        ({"epochs": 0}, ["epochs"]),
        ({"batch_sentences": 0}, ["batch_sentences"]),
        ({"format": "spret"}, ["format='spret'", "spert"]),
        ({"start_encoder": "kye"}, ["start_encoder", "did you mean 'key'"]),
        ({"learning_rat": 1}, ["learning_rat", "did you mean 'learning_rate'"]),
        ({"start": None, "tokenizer": "x", "hidden_size": 30, "attention_heads": 4}, ["hidden_size=30"]),
    ],
)
def test_wrong_settings_name_themselves(given, words):
    with pytest.raises(ConfigError) as caught:
        load(**given)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_preset_of_pretraining_is_unknown():
    assert "nyt" in PRETRAINING
    with pytest.raises(ConfigError, match="unknown preset 'nyt'"):
        load("nyt")
