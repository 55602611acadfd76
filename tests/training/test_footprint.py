"""Estimates of memory and disk beside what runs were measured to take."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from project import ROOT
from torch import nn

from spe_dist.cli.main import main
from spe_dist.training.footprint import disk_line, engine_memory, saved_activations
from spe_dist.training.metrics import read_rows

NETWORK = "--hidden_size=256 --layers=4 --attention_heads=4 --intermediate_size=1024 --precision=float32".split()
PRETRAINING = [*NETWORK, *"--queue_keys=4096 --global_batch_sentences=32 --micro_batch_sentences=16".split()]
PRETRAINING += ["--steps=3", "--evaluate_sentences=0", "--loader_workers=0", "--log_every_steps=1"]
UNITS = {"MiB": 2**20, "GiB": 2**30}


def figures(text: str, name: str) -> float:
    """The first size after a name, in bytes."""
    found = re.search(rf"{name} ([\d.,]+) (MiB|GiB)", text)
    assert found, text
    return float(found[1].replace(",", "")) * UNITS[found[2]]


def spe(*arguments: object) -> str:
    """What `spe` prints in a process of its own, whose memory is its own."""
    command = [sys.executable, "-m", "spe_dist", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=500)
    assert done.returncode == 0, done.stderr
    return done.stdout


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_the_estimates_of_pretraining_are_near_what_the_run_takes(demo_shards, tmp_path, monkeypatch):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    given = ["pretrain", "--shards", demo_shards, "--output", tmp_path / "run", *PRETRAINING]
    planned = spe(*given, "--dry_run")
    assert not (tmp_path / "run").exists()
    text = spe(*given)
    (parameters,) = re.findall(r"model: ([\d,]+) parameters", planned)
    assert f"{parameters} parameters" in text and "3 steps" in planned
    peak = max(row["peak_memory_gib"] for row in read_rows(tmp_path / "run" / "metrics.jsonl", "train")) * 2**30
    assert figures(planned, "memory: about") == pytest.approx(peak, rel=0.25)
    checkpoint = folder_bytes(tmp_path / "run" / "checkpoints" / "step_00000003")
    assert figures(planned, "a checkpoint about") == pytest.approx(checkpoint, rel=0.2)


@pytest.mark.slow
def test_the_estimates_of_finetuning_are_near_what_the_run_takes(demo_corpus, demo_shards, tmp_path, monkeypatch):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    files = [f"--{part}={demo_corpus}/extraction/{part}.json" for part in ("train", "dev")]
    given = ["finetune", *files, f"--tokenizer={demo_shards}/tokenizer", "--output", tmp_path / "run", *NETWORK]
    given += ["--epochs=1", "--train_share=0.1", "--batch_sentences=16", "--log_every_steps=1"]
    planned = spe(*given, "--dry_run")
    assert not (tmp_path / "run").exists() and "1 epoch x " in planned
    spe(*given)
    peak = max(row["peak_memory_gib"] for row in read_rows(tmp_path / "run" / "metrics.jsonl", "train")) * 2**30
    assert figures(planned, "memory: about") == pytest.approx(peak, rel=0.25)


def test_a_dry_run_writes_nothing_and_plans_for_other_ranks(demo_shards, tmp_path, capsys):
    output = tmp_path / "run"
    given = ["pretrain", "--shards", str(demo_shards), "--output", str(output), *PRETRAINING]
    assert main([*given, "--dry_run", "2"]) == 0
    printed = capsys.readouterr().out
    assert "32 sentences a step = 2 ranks x 1 accumulated x 16 a micro-batch" in printed
    assert not output.exists() and "nothing was trained" in printed
    assert "ZeRO stage 1, float32" in printed and "in place of" not in printed
    assert main([*given, "--dry_run"]) == 0
    printed = capsys.readouterr().out
    assert "ZeRO stage 0, float32" in printed and "stage 0 in place of 1" in printed
    assert main([*given, "--dry_run", "3"]) == 2
    assert "not divisible by 3 ranks" in capsys.readouterr().err


def test_a_dry_run_of_the_demo_makes_its_corpus_elsewhere(tmp_path, capsys, monkeypatch):
    from spe_dist.demo import shards

    def small(folder: Path) -> Path:
        raise shards_made(str(folder))

    class shards_made(Exception):
        pass

    monkeypatch.setattr(shards, "make_demo_shards", small)
    with pytest.raises(shards_made) as caught:
        main(["pretrain", "--dry_run", "--output", str(tmp_path / "run")])
    assert not str(caught.value).startswith(str(tmp_path / "run")) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("stage", "ranks", "precision", "expected"),
    [
        (0, 1, "float32", 16),  # weights, gradients, two moments
        (1, 4, "bfloat16", 2 + (2 + 4) + (2 + 4) + 12 / 4),
        (1, 4, "float16", 2 + (2 + 4 / 4) + 2 + 12 / 4),
        (2, 4, "bfloat16", 2 + 4 / 4 + 2 * 2 + 12 / 4),
        (2, 4, "float16", 2 + 4 / 4 + 2 * 2 + 12 / 4),
        (3, 4, "bfloat16", 2 / 4 + 4 / 4 + (2 * 2 + 4 / 4) + 12 / 4 + 2),
    ],
)
def test_bytes_a_parameter_follow_the_stage(stage, ranks, precision, expected):
    parameters = 1_000_000
    memory = engine_memory(parameters, {"zero_optimization": {"stage": stage}}, precision, ranks)
    assert sum(memory.values()) == pytest.approx(expected * parameters)


def test_offloaded_moments_take_no_memory_of_the_device():
    config = {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}
    on_gpu, on_cpu = (engine_memory(1_000, config, "float16", 2, device) for device in ("cuda", "cpu"))
    assert on_gpu["masters"] == on_gpu["moments"] == 0
    assert on_cpu["masters"] == 2_000 and on_cpu["moments"] == 4_000 and sum(on_cpu.values()) > sum(on_gpu.values())


def test_activations_are_what_autograd_saves_without_the_weights():
    model = nn.Sequential(nn.Linear(10, 20), nn.Tanh(), nn.Linear(20, 5))
    x = torch.randn(7, 10)
    # inputs of both layers (the second is tanh's own output), and the output twice
    assert saved_activations(model, lambda: model(x)) == 4 * (7 * 10 + 7 * 20 + 2 * 7 * 5)


def test_too_little_disk_is_said(tmp_path, monkeypatch):
    line = disk_line(2**40, 10**6, str(tmp_path / "not" / "there"))
    assert "TOO LITTLE" in line and str(tmp_path) in line and not (tmp_path / "not").exists()
    assert "TOO LITTLE" not in disk_line(1, 1, str(tmp_path))
