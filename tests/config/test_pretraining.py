import argparse

import pytest

from spe_dist.config.loading import (
    Parser,
    add_settings,
    flatten,
    leaves,
    load_config,
    load_yaml,
    parse_command_line,
    resolve,
    to_yaml,
)
from spe_dist.config.pretraining import PRESETS, Config, validate
from spe_dist.errors import ConfigError


def parser() -> argparse.ArgumentParser:
    made = Parser(allow_abbrev=False, argument_default=argparse.SUPPRESS)
    add_settings(made)
    return made


def test_every_leaf_has_a_help_text_and_a_unique_name():
    assert all(leaf.help for leaf in leaves().values())


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid_and_hold_known_settings_only(preset):
    config = load_config(preset=preset, yaml_file=None, given={})
    validate(config)


def test_paper_preset_holds_the_papers_values():
    config = load_config(preset="paper", yaml_file=None, given={})
    assert (config.train.steps, config.optimizer.warmup_steps, config.train.global_batch_sentences) == (
        40_000,
        18_000,
        256,
    )
    assert (config.optimizer.learning_rate, config.optimizer.weight_decay, config.optimizer.max_grad_norm) == (
        1e-4,
        0.01,
        1,
    )
    assert (config.moco.queue_keys, config.moco.momentum, config.moco.temperature) == (65_536, 0.999, 0.2)
    assert (config.corruption.view_masks, config.moco.normalize, config.data.max_pieces) == ("each", False, 128)


def test_command_line_beats_yaml_beats_preset(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("train:\n  steps: 7\n  seed: 3\nlearning_rate: 2e-4\n")
    given = vars(parse_command_line(parser(), ["--steps", "9", "--normalize", "false", "--cnn_kernels", "2,3"]))
    config = load_config(preset="demo", yaml_file=str(file), given=given)
    assert (config.train.steps, config.train.seed, config.optimizer.learning_rate) == (9, 3, 2e-4)
    assert (config.moco.normalize, config.model.cnn_kernels, config.model.hidden_size) == (False, (2, 3), 128)


def test_resolved_config_survives_yaml(tmp_path):
    config = load_config(preset="demo", yaml_file=None, given={"shards": "somewhere", "cnn_kernels": (2, 4)})
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config))
    assert resolve([load_yaml(file)]) == config


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"learnin_rate": 1}, ["learnin_rate", "learning_rate"]),
        ({"view_masks": "ech"}, ["view_masks", "each"]),
        ({"steps": "many"}, ["steps", "whole number"]),
        ({"steps": 1.5}, ["steps", "whole number"]),
        ({"tbo": "perhaps"}, ["tbo", "true or false"]),
        ({"dropout": 1.0}, ["dropout=1.0", "[0, 1)"]),
        ({"learning_rate": float("nan")}, ["learning_rate", "finite"]),
        ({"tbo": False, "spo": False, "cspo": False}, ["all off"]),
        ({"hidden_size": 100, "attention_heads": 12}, ["hidden_size=100", "attention_heads=12"]),
        ({"steps": 10, "warmup_steps": 11}, ["warmup_steps=11", "steps=10"]),
        ({"permutations": 7}, ["permutations=7", "6"]),
        ({"queue_keys": 0}, ["queue_keys=0"]),
    ],
)
def test_bad_settings_name_the_value_and_the_remedy(given, words):
    with pytest.raises(ConfigError) as caught:
        load_config(preset=None, yaml_file=None, given=given)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("document", "word"),
    [
        ({"train": {"stepz": 1}}, "steps"),
        ({"train": {"learning_rate": 1}}, "optimizer"),
        ({"train": {"steps": 1}, "steps": 2}, "twice"),
        ([1, 2], "mapping"),
    ],
)
def test_yaml_mistakes_are_errors(document, word):
    with pytest.raises(ConfigError, match=word):
        flatten(document, "run.yaml")


def test_unknown_argument_names_the_nearest():
    with pytest.raises(ConfigError, match="--global_batch_sentences"):
        parse_command_line(parser(), ["--global_batch_sentence", "3"])


def test_unknown_preset_lists_the_known():
    with pytest.raises(ConfigError, match="paper"):
        load_config(preset="papr", yaml_file=None, given={})


def test_defaults_are_valid():
    validate(Config())
