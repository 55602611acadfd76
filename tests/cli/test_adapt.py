"""`spe adapt`: the commands it runs, the estimate, and going on where it was stopped."""

from __future__ import annotations

import json
import shlex
from itertools import pairwise

import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM, BertConfig, BertModel

from spe_dist.cli import adapt
from spe_dist.cli.adapt.stages import RECORD, Adaptation
from spe_dist.data.text.vocabulary import load_tokenizer
from spe_dist.export import load_pretraining_model
from spe_dist.export.folder import read_folder
from spe_dist.utils import stages

SMALL = "--global_batch_sentences 8 --queue_keys 64 --evaluate_sentences 0 --loader_workers 0 --precision float32"


@pytest.fixture(scope="module")
def demo_encoder(demo_shards, tmp_path_factory):
    """A small BERT with the vocabulary of the demo."""
    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = load_tokenizer(demo_shards / "tokenizer")
    tokenizer.save_pretrained(str(folder))
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(str(folder))
    return folder


def of(*argv, settings=()):
    return Adaptation.of(adapt.build_parser().parse(list(argv)), settings)


def needed(folder, *more):
    return ["--text", "t", "--encoder", "e", "--output", str(folder / "out"), *more]


def test_the_work_folder_lies_beside_the_encoder_unless_it_is_given(tmp_path):
    assert of(*needed(tmp_path)).work == tmp_path / "out-work"
    assert of(*needed(tmp_path, "--work", "w")).work.name == "w"


def test_several_ranks_are_launched_and_settings_reach_trial_and_training(tmp_path, monkeypatch):
    monkeypatch.setattr(Adaptation, "_sentences", lambda self: 64_000)
    several = of(*needed(tmp_path, "--ranks", "4", "--passes", "2"), settings=["--cache_dir", "a b"])
    for stage in (several.trial(), several.pretraining()):
        assert stage.command[:3] == ["deepspeed", "--num_gpus", "4"] and "zero2" in stage.command
        assert "--cache_dir 'a b'" in shlex.join(stage.command)
    command = of(*needed(tmp_path, "--ranks", "1")).pretraining().command
    assert command[:2] == ["spe", "pretrain"]
    assert "--epochs 3.0 --freeze_encoder_steps 300 --resume auto" in shlex.join(command)


@pytest.mark.parametrize(
    ("objectives", "switched_on"),
    [((), "mlm"), (("mlm",), "mlm"), (("spe",), "tbo spo cspo"), (("spe+mlm",), "mlm tbo spo cspo")],
)
def test_objectives_are_those_of_trial_and_training_unless_settings_say_otherwise(
    tmp_path, monkeypatch, objectives, switched_on
):
    monkeypatch.setattr(Adaptation, "_sentences", lambda self: 64_000)
    argv = needed(tmp_path, *(["--objectives", *objectives] if objectives else []))
    asked = of(*argv)
    on = [name for name in ("mlm", "tbo", "spo", "cspo") if getattr(asked.config.objectives, name)]
    assert on == switched_on.split()
    for stage in (asked.trial(), asked.pretraining()):
        words = list(pairwise(stage.command))
        assert [name for name in ("mlm", "tbo", "spo", "cspo") if (f"--{name}", "true") in words] == on
        assert len([word for word, _ in words if word in ("--mlm", "--tbo", "--spo", "--cspo")]) == 4
    assert of(*argv, settings=["--spo", "false"]).config.objectives.spo is False


def test_the_heads_learn_alone_for_no_more_than_a_tenth_of_the_run(tmp_path, monkeypatch):
    def frozen(sentences, *settings):
        monkeypatch.setattr(Adaptation, "_sentences", lambda self: sentences)
        command = of(*needed(tmp_path), settings=settings).pretraining().command
        return [word for before, word in pairwise(command) if before == "--freeze_encoder_steps"]

    assert frozen(10) == ["0"] and frozen(6_400) == ["30"] and frozen(10**7) == ["500"]
    assert frozen(6_400, "--global_batch_sentences", "32") == ["60"]
    assert frozen(6_400, "--freeze_encoder_steps", "7") == ["30", "7"]  # of which the last one counts
    trial = of(*needed(tmp_path), settings=["--freeze_encoder_steps", "7"]).trial().command
    assert trial.index("--freeze_encoder_steps", trial.index("7")) > trial.index("7")


def test_steps_and_epochs_among_the_settings_count_in_the_estimate_and_for_the_heads(tmp_path, monkeypatch):
    monkeypatch.setattr(Adaptation, "_sentences", lambda self: 64_000)
    monkeypatch.setattr(Adaptation, "speed", lambda self: 100.0)

    def planned(*settings):
        adaptation = of(*needed(tmp_path), settings=["--global_batch_sentences", "64", *settings])
        command = adaptation.pretraining().command
        return adaptation.estimate(), command[command.index("--freeze_encoder_steps") + 1]

    estimate, heads_first = planned()
    assert estimate.startswith("3 passes over 64,000 sentences at 100 a second: about 32m00s") and heads_first == "300"
    estimate, heads_first = planned("--epochs", "1")
    assert estimate.startswith("1 pass over 64,000 sentences at 100 a second: about 10m40s") and heads_first == "100"
    estimate, heads_first = planned("--steps", "200")
    assert estimate.startswith("200 steps of 64 sentences at 100 a second: about 2m08s") and heads_first == "20"


def test_a_wrong_setting_is_an_error_before_anything_begins(tmp_path, capsys):
    assert adapt.main([*needed(tmp_path), "--", "--learning_rat", "1"]) == 2
    assert "did you mean '--learning_rate'" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_folders_of_others_are_refused(tmp_path, capsys):
    def refuses(words, *argv):
        assert adapt.main(needed(tmp_path, *argv)) == 2
        assert words in capsys.readouterr().err

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    refuses("is there already")
    (tmp_path / "out" / "thesis.tex").rename(tmp_path / "thesis.tex")
    refuses("is there already", "--output", str(tmp_path / "thesis.tex"))
    refuses("is not of spe adapt", "--work", str(tmp_path))
    of(*needed(tmp_path))._claim()
    refuses("passes, language differ", "--passes", "7", "--language", "de")
    refuses("(objectives differ)", "--objectives", "spe")


def test_text_becomes_an_encoder_and_a_second_start_uses_what_is_there(demo_corpus, demo_encoder, tmp_path, capsys):
    text, output = tmp_path / "text.txt", tmp_path / "encoder"
    text.write_text("".join((demo_corpus / "text.txt").read_text().splitlines(keepends=True)[:60]))
    argv = ["--text", str(text), "--encoder", str(demo_encoder), "--output", str(output), "--passes", "0.5"]
    argv += ["--language", "en"]
    settings = ["--", *SMALL.split()]
    assert adapt.main([*argv, "--estimate", *settings]) == 0
    printed = capsys.readouterr().out
    assert "0.5 passes over" in printed and "of training on this machine" in printed and not output.exists()
    speeds = json.loads((tmp_path / "encoder-work" / RECORD).read_text())["sentences_per_s"]
    assert speeds["1"] > 0

    assert adapt.main([*argv, *settings]) == 0
    printed = capsys.readouterr().out
    assert "A few steps" not in printed and str(output) in printed
    model = load_pretraining_model(output)
    before, after = (AutoModel.from_pretrained(folder).state_dict() for folder in (demo_encoder, output))
    name = "encoder.layer.0.attention.self.query.weight"
    assert before[name].shape == after[name].shape and not before[name].equal(after[name])
    assert model.spe.pair_encoder is None
    assert AutoModelForMaskedLM.from_pretrained(output).config.hidden_size == 32
    assert read_folder(output).language == "en"


def test_a_stage_that_fails_is_named_and_goes_on_later(monkeypatch, tmp_path, capsys):
    adaptation = of(*needed(tmp_path))
    monkeypatch.setattr(stages, "_run", lambda command, log: log.write("error: no text\n") and 3)
    assert adaptation.run() == 3
    assert "Shards of the text ended with status 3: no text" in capsys.readouterr().err
    assert pytest.approx(adaptation.passes) == 3.0
