"""The one manner of all command lines: unknown words, other names, defaults, what --help shows, and how fast."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys

import pytest
from project import ROOT

from spe_dist.cli import main as spe
from spe_dist.cli.options.other_names import OTHER_NAMES
from spe_dist.cli.options.parser import Parser
from spe_dist.cli.options.settings import add_settings
from spe_dist.config.finetuning import FinetuneConfig

HEAVY = ("torch", "numpy", "transformers", "deepspeed", "spacy", "matplotlib")
SUBCOMMANDS = {
    "shards": ["make", "verify", "show"],
    "corpus": ["inspect", "convert"],
    "experiments": ["run", "table"],
    "benchmark": ["pretrain", "scaling", "extraction", "prediction"],
}
COMMANDS = [[name] for name in spe.COMMANDS]
COMMANDS += [[name, inner] for name, inners in SUBCOMMANDS.items() for inner in inners]
WITH_OPTIONS = [command for command in COMMANDS if command[0] not in SUBCOMMANDS or len(command) > 1]
NEEDED = {  # arguments without which a command would complain of their absence first
    "predict": ["MODEL"],
}


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = spe.main(arguments)
    printed = capsys.readouterr()
    return status, printed.out, printed.err


@pytest.mark.parametrize("command", [[], *COMMANDS], ids=" ".join)
def test_help_answers_without_loading_anything_heavy(command):
    program = (
        "import sys; from spe_dist.cli.main import main; status = main(sys.argv[1:]); "
        f"sys.exit(status or ' '.join(name for name in {HEAVY} if name in sys.modules) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *command, "--help"], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {' '.join(['spe', *command])}") and not done.stderr


@pytest.mark.parametrize("command", WITH_OPTIONS, ids=" ".join)
def test_an_unknown_option_names_the_nearest_in_one_line(command, capsys):
    _, text, _ = run(*command, "--help-all", capsys=capsys)
    known = [name for name in re.findall(r"^  (--\w{4,})", text, flags=re.MULTILINE) if name != "--version"]
    assert known
    for name in known:
        wrong = name[:-1] + ("x" if name[-1] != "x" else "y")
        status, out, err = run(*command, wrong, capsys=capsys)
        assert (status, out) == (2, ""), err
        assert re.fullmatch(rf"error: unknown option '{wrong}'; did you mean '--\w+'\?\n", err), err


@pytest.mark.parametrize("command", [["predcit"], ["shards", "verfy"], ["corpus", "convrt"], ["experiments", "tabel"]])
def test_an_unknown_command_names_the_nearest_in_one_line(command, capsys):
    status, out, err = run(*command, capsys=capsys)
    assert (status, out) == (2, "") and err.startswith(f"error: unknown command {command[-1]!r}; did you mean '")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "typed", "ours"),
    [
        ("pretrain", "--lr", "--learning_rate"),
        ("pretrain", "--batch_size=8", "--global_batch_sentences"),
        ("pretrain", "--max_steps", "--steps"),
        ("pretrain", "--model_name_or_path", "--encoder"),
        ("pretrain", "--warmup_ratio", "--warmup_fraction"),
        ("pretrain", "--output-dir", "--output"),
        ("pretrain", "--fp16", "--precision float16"),
        ("finetune", "--batch_size", "--batch_sentences"),
        ("finetune", "--num_train_epochs", "--epochs"),
        ("finetune", "--learning-rate", "--learning_rate"),
        ("finetune", "--model_name_or_path", "--start"),
        ("predict", "--eval_batch_size", "--batch_pieces"),
        ("predict", "--threshold", "--min_probability"),
        ("predict", "--output_dir", "--output"),
    ],
)
def test_common_other_names_are_answered_with_ours(command, typed, ours, capsys):
    status, _, err = run(command, *NEEDED.get(command, []), typed, "1", capsys=capsys)
    assert status == 2 and err == f"error: {typed.partition('=')[0]} is called {ours} here\n"


def test_an_option_that_is_an_argument_without_a_name_here_shows_where_it_stands(capsys):
    status, _, err = run("predict", "--model_name_or_path", "runs/model", capsys=capsys)
    assert status == 2 and "is MODEL here" in err and "spe predict MODEL [INPUT ...]" in err


def test_every_other_name_leads_to_an_option_that_some_command_has(capsys):
    texts = [run(*command, "--help-all", capsys=capsys)[1] for command in WITH_OPTIONS]
    options = {name for text in texts for name in re.findall(r"^  --(\w+)|, --(\w+)", text, flags=re.MULTILINE)}
    known = {part for pair in options for part in pair if part}
    for name, ours in OTHER_NAMES.items():
        assert name not in ours, name
        assert any(word.split()[0] in known or word.split()[0].isupper() for word in ours), name


def test_help_shows_what_people_use_first_and_counts_the_rest(capsys):
    _, first, _ = run("pretrain", "--help", capsys=capsys)
    _, everything, _ = run("pretrain", "--help-all", capsys=capsys)
    hidden = int(re.search(r"^(\d+) more options: spe pretrain --help-all", first, flags=re.MULTILINE)[1])
    names = [set(re.findall(r"^  (--\w+)", text, flags=re.MULTILINE)) for text in (first, everything)]
    assert names[0] < names[1] and len(names[1]) - len(names[0]) == hidden + len({"--version", "--help-all"})
    assert "--shards" in names[0] and "--adam_beta1" in names[1] - names[0]
    assert "more option" not in everything


@pytest.mark.parametrize("command", WITH_OPTIONS, ids=" ".join)
def test_defaults_are_shown_in_brackets_everywhere(command, capsys):
    _, text, _ = run(*command, "--help-all", capsys=capsys)
    assert "(default" not in text and "default:" not in text


@pytest.mark.parametrize("command", WITH_OPTIONS, ids=" ".join)
def test_no_line_of_a_help_is_too_wide(command, capsys):
    _, shown, _ = run(*command, "--help-all", capsys=capsys)
    assert [line for line in shown.splitlines() if len(line) > 120] == []


def test_defaults_follow_the_help_text_unless_it_has_brackets_of_its_own():
    parser = Parser("spe test", "", None)
    parser.add_argument("--share", type=float, default=0.0, help="a share")
    parser.add_argument("--device", default="auto", help="a device [a GPU where there is one]")
    parser.add_argument("--flag", action="store_true", help="a flag")
    text = parser.format_help()
    assert "a share [0]\n" in text and "one]\n" in text and "a flag\n" in text and "[auto]" not in text


def test_the_version_is_told_by_every_command(capsys):
    for command in ([], *COMMANDS):
        status, out, _ = run(*command, "--version", capsys=capsys)
        assert status == 0 and re.fullmatch(r"spe-dist \d[\w.]*\n", out)


def test_a_group_of_commands_without_a_command_is_an_error(capsys):
    for name in SUBCOMMANDS:
        status, _, err = run(name, capsys=capsys)
        assert status == 2 and err.startswith(f"error: spe {name} needs a command: ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["predict", "model", ""], "error: an argument is empty, as of a shell variable that is not set"),
        (["predict", ""], "error: an argument is empty"),
        (["predict", "model", "text.txt", "--output", ""], "error: --output is empty; give a value, or leave"),
        (["predict", "model", "text.txt", "--html="], "error: --html is empty"),
        (["pretrain", "--shards", "", "--steps", "1"], "error: --shards is empty"),
        (["pretrain", "--config", ""], "error: --config is empty"),
        (["pretrain", "--output="], "error: --output is empty"),
        (["shards", "make", "--input", "a.txt", "--output", ""], "error: --output is empty"),
        (["corpus", "convert", "small.json", "", "--to", "brat"], "error: an argument is empty"),
        (["thresholds", "model", "dev.json", "--output", ""], "error: --output is empty"),
        (["adapt", "--text", "a.txt", "--output", ""], "error: --output is empty"),
        (["export", "RUN", ""], "error: an argument is empty"),
        (["experiments", "run", "demo", "--only", ""], "error: --only is empty"),
    ],
    ids=" ".join,
)
def test_an_empty_argument_is_no_folder(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, error = run(*words, capsys=capsys)
    assert status == 2 and said in error and not any(tmp_path.iterdir())


def test_a_list_of_settings_may_be_empty():
    parser = Parser("spe finetune", "", "")
    add_settings(parser, FinetuneConfig)
    assert parser.parse(["--symmetric", "", "--pair_features="]) == argparse.Namespace(symmetric="", pair_features="")
