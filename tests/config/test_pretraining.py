import pytest

from spe_dist.cli.main import main
from spe_dist.cli.options.training import read_options, training_parser
from spe_dist.config.loading import flatten, leaves, load_config, load_yaml, resolve, to_yaml
from spe_dist.config.presets import PRETRAINING
from spe_dist.config.pretraining import Config
from spe_dist.errors import ConfigError


def read(*arguments: str) -> Config:
    """The config of a command line of `spe pretrain`."""
    return read_options(training_parser("spe pretrain", None, Config), arguments, Config).config


def test_every_leaf_has_a_help_text_and_a_unique_name():
    assert all(leaf.help for leaf in leaves().values())


@pytest.mark.parametrize("preset", [None, *PRETRAINING])
def test_defaults_and_presets_are_valid_and_what_would_not_be_is_refused(preset):
    config = load_config(preset=preset, yaml_file=None, given={})
    known = leaves(Config)
    for name, value in PRETRAINING.get(preset, {}).items():
        assert getattr(getattr(config, known[name].section), name) == value
    config.validate()
    for given in ({"temperature": 0}, {"steps": 0, "epochs": 0}, {"cnn_kernels": ()}):
        with pytest.raises(ConfigError, match=next(iter(given))):
            load_config(preset=preset, yaml_file=None, given=given)


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
    given = ["--steps", "9", "--normalize", "false", "--cnn_kernels", "2,3"]
    config = read("--preset", "demo", "--config", str(file), *given)
    assert (config.train.steps, config.train.seed, config.optimizer.learning_rate) == (9, 3, 2e-4)
    assert (config.moco.normalize, config.model.cnn_kernels, config.model.hidden_size) == (False, (2, 3), 64)


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
        ({"queue_keys": 0}, ["queue_keys=0", "at least 1"]),
        ({"learning_rate": 0}, ["learning_rate=0", "above 0"]),
        ({"min_permuted_words": 2}, ["min_permuted_words=2", "first word, middle and last word need 3"]),
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


@pytest.mark.parametrize("digits", [20, 400])
def test_whole_numbers_beyond_what_a_checkpoint_holds_are_refused(digits, tmp_path):
    (tmp_path / "big.yaml").write_text(f"seed: {'9' * digits}\n")
    with pytest.raises(ConfigError, match=r"seed=9+\S*: must be at most 4,611,686,018,427,387,904"):
        read("--config", str(tmp_path / "big.yaml"))


@pytest.mark.parametrize("seconds", ["1e300", "0", "0.5", "-1", "inf", "nan"])
def test_seconds_that_nobody_can_wait_are_refused(seconds):
    with pytest.raises(ConfigError, match=r"timeout_s=\S+: must be"):
        read("--timeout_s", seconds)


def test_whole_numbers_of_the_command_line_are_exact():
    assert read("--seed", "1234567890123456789").train.seed == 1234567890123456789
    assert read("--seed", "1e3").train.seed == 1000


def test_unknown_argument_names_the_nearest():
    with pytest.raises(ConfigError, match="--global_batch_sentences"):
        read("--global_batch_sentence", "3")


def test_unknown_preset_lists_the_known():
    with pytest.raises(ConfigError, match="paper"):
        load_config(preset="papr", yaml_file=None, given={})


def test_a_preset_with_an_unknown_setting_is_refused(monkeypatch):
    monkeypatch.setitem(PRETRAINING, "demo", {**PRETRAINING["demo"], "hiden_size": 3})
    with pytest.raises(ConfigError, match=r"'hiden_size'.*'hidden_size'"):
        load_config(preset="demo", yaml_file=None, given={})


def test_a_key_given_twice_is_refused_with_its_line(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("steps: 3\nseed: 1\nsteps: 4\n")
    with pytest.raises(ConfigError, match=r"run\.yaml, line 3: the key 'steps' stands twice"):
        load_yaml(file)


@pytest.mark.parametrize(("text", "words"), [("steps: [1", "line 1"), ("steps: 3\n  seed: 1\n", "line 2")])
def test_what_is_not_yaml_is_one_line_with_its_place(text, words, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_yaml(file)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_print_config_prints_what_config_reads_back(command, tmp_path, capsys):
    preset = {"pretrain": "paper", "finetune": "small"}[command]
    given = ["--shards", "S"] if command == "pretrain" else []
    assert main([command, "--preset", preset, "--seed", "7", "--print_config", *given]) == 0
    printed = capsys.readouterr().out
    (tmp_path / "run.yaml").write_text(printed)
    assert "seed: 7" in printed
    assert main([command, "--config", str(tmp_path / "run.yaml"), "--print_config"]) == 0
    assert capsys.readouterr().out == printed
