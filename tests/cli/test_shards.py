"""spe shards as a user types it, also killed in the middle."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from project import ROOT

from spe_dist.cli import shards as shards_command
from spe_dist.data.shards.manifest import Manifest
from spe_dist.data.text.vocabulary import SPECIAL_TOKENS

PROGRAM = "import sys, spe_dist.data.text.files as t; from spe_dist.cli.main import main; t.PART_BYTES = 8 << 10; "
PROGRAM += "sys.exit(main(['shards', *sys.argv[1:]]))"


def command(name: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", PROGRAM, name, *map(str, arguments)]


def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command(name, *arguments), capture_output=True, text=True, env=environment, timeout=400)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """8,000 tokenised sentences and a vocabulary for them."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = random.Random(0)
    names = ["ada", "bo", "cy", "dot", "eve"]
    lines = [f"{rng.choice(names)} saw {i} and , with {rng.choice(names)} , the {i * 7} ." for i in range(8_000)]
    (folder / "text.txt").write_text("\n".join(lines) + "\n")
    digits = [*"0123456789", *(f"##{digit}" for digit in "0123456789")]
    pieces = [*SPECIAL_TOKENS, *names, "saw", "and", "with", "the", ".", ",", *digits]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    return folder


def arguments(corpus: Path, output: Path) -> list[object]:
    sizes = ["--shard_sentences", 400, "--block_sentences", 100, "--processes", 2]
    return ["--input", corpus / "text.txt", "--output", output, "--tokenizer", corpus / "vocab.txt", *sizes]


@pytest.fixture(scope="module")
def shards(corpus) -> Path:
    made = run("make", *arguments(corpus, corpus / "shards"))
    assert made.returncode == 0, made.stderr
    assert "words: spaces" in made.stdout and "pieces/word" in made.stdout and "skipped: nothing" in made.stdout
    assert made.stdout.endswith(f"next: spe pretrain --shards {corpus / 'shards'} --output RUN\n")  # no encoder there
    return corpus / "shards"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("stage", ["parts", "shards"])
def test_a_build_killed_in_the_middle_continues_to_the_same_bytes(corpus, shards, tmp_path, stage):
    output = tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command("make", *arguments(corpus, output)), env=environment)
    try:
        deadline = time.monotonic() + 240
        while not list((output / ".build" / stage).glob("*.json")):
            assert process.poll() is None and time.monotonic() < deadline, "it ended before it could be killed"
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (output / "manifest.json").exists()
    again = run("make", *arguments(corpus, output))
    assert again.returncode == 0, again.stderr
    assert "continuing an interrupted build" in again.stdout
    assert contents(output) == contents(shards)


def test_what_a_user_gets_wrong_is_one_line_and_status_2(corpus, tmp_path):
    made = run("make", "--input", tmp_path / "none.txt", "--output", tmp_path / "out", "--train_vocab", 100)
    assert made.returncode == 2 and made.stderr.startswith("error: input ") and "Traceback" not in made.stderr
    (tmp_path / "raw.txt").write_text("Raw text, with commas, is not tokenised.\n" * 30)
    raw = ["--input", tmp_path / "raw.txt", "--output", tmp_path / "out", "--tokenizer", corpus / "vocab.txt"]
    made = run("make", *raw, "--words", "spaces")
    assert made.returncode == 2 and "words='tokenizer'" in made.stderr and made.stderr.count("\n") == 1


def test_verify_prints_what_it_checked_and_fails_on_damage(shards, tmp_path):
    good = run("verify", shards)
    assert good.returncode == 0 and "8,000 sentences" in good.stdout and "all as the manifest says" in good.stdout
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for name, data in contents(shards).items():
        (damaged / name).parent.mkdir(exist_ok=True)
        (damaged / name).write_bytes(data)
    data = bytearray((damaged / "train-00000.tar").read_bytes())
    data[5_000] ^= 1
    (damaged / "train-00000.tar").write_bytes(data)
    bad = run("verify", damaged)
    assert bad.returncode == 1 and "train-00000.tar: SHA-256" in bad.stdout
    missing = run("verify", tmp_path)
    assert missing.returncode == 2 and missing.stderr.startswith("error: ")


def test_show_prints_any_sentence_by_its_id_with_both_views(shards):
    manifest = Manifest.load(shards)
    for number in (0, manifest.n_sentences("train")):
        shown = run("show", shards, "--sentence", number, "--epoch", 2, "--view_masks", "each")
        assert shown.returncode == 0, shown.stderr
        assert "saw" in shown.stdout and "span-pair view" in shown.stdout and "[MASK]" in shown.stdout
    wrong = run("show", shards, "--sentence", 8_000)
    assert wrong.returncode == 2 and "0 to 7999" in wrong.stderr


def test_the_next_command_starts_from_what_has_an_encoder(tmp_path):
    vocabulary, encoder = tmp_path / "vocab.txt", tmp_path / "encoder"
    vocabulary.touch()
    encoder.mkdir()
    assert not any(map(shards_command._may_be_encoder, (None, str(vocabulary), str(encoder))))
    (encoder / "config.json").touch()
    assert all(map(shards_command._may_be_encoder, ("bert-base-cased", str(encoder))))
