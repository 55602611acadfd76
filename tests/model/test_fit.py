"""Weights and config.json of an encoder that do not belong together: one line with the setting and the remedy."""

from __future__ import annotations

import json

import pytest
from transformers import BertConfig, BertModel

from spe_dist.config.pretraining import ModelConfig
from spe_dist.errors import ConfigError
from spe_dist.model.loading import load_encoder
from spe_dist.model.start.assembly import kept_by

SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
}


class KeepsNothing:
    """A keeper that leaves all where it is, so that weights are read tensor by tensor."""

    def keep(self, module):
        pass

    def whole(self, module):
        import contextlib

        return contextlib.nullcontext()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    BertModel(BertConfig(**SIZES)).save_pretrained(folder)
    return folder


@pytest.fixture
def with_config(saved, tmp_path):
    """with_config(setting, value): a folder of the same weights with another config.json."""

    def make(setting, value):
        config = json.loads((saved / "config.json").read_text()) | {setting: value}
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes())
        return tmp_path

    return make


@pytest.mark.parametrize("by_tensor", [False, True])
@pytest.mark.parametrize(
    ("setting", "value", "has"),
    [
        ("vocab_size", 30, 40),
        ("vocab_size", 41, 40),
        ("hidden_size", 18, 16),
        ("intermediate_size", 20, 24),
        ("max_position_embeddings", 24, 20),
        ("num_hidden_layers", 4, 3),
        ("num_hidden_layers", 2, 3),
    ],
)
def test_a_size_that_is_not_that_of_the_weights_is_named(with_config, setting, value, has, by_tensor):
    folder = with_config(setting, value)
    with kept_by(KeepsNothing() if by_tensor else None), pytest.raises(ConfigError) as caught:
        load_encoder(str(folder), ModelConfig(), 0, seed=0)
    message = str(caught.value)
    assert f"has {setting}={value}, but its weights have {has}" in message and "copy both from one model" in message
    assert "\n" not in message


def test_weights_that_fit_are_read(saved):
    assert load_encoder(str(saved), ModelConfig(), 0, seed=0).vocab_size == 40


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_pointer_of_git_lfs_in_place_of_weights_or_config_is_named(with_config, name):
    folder = with_config("vocab_size", 40)
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n")
    with pytest.raises(ConfigError, match=rf"{name} is a Git LFS pointer.*git lfs pull"):
        load_encoder(str(folder), ModelConfig(), 0, seed=0)


def test_sizes_without_weights_or_with_holes_in_their_place_take_no_memory(with_config):
    folder = with_config("vocab_size", 1 << 24)
    weights = folder / "model.safetensors"
    weights.unlink()
    with pytest.raises(ConfigError, match="holds no weights"):
        load_encoder(str(folder), ModelConfig(), 0, seed=0)
    with weights.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConfigError, match=r"cannot read .*model\.safetensors"):
        load_encoder(str(folder), ModelConfig(), 0, seed=0)
