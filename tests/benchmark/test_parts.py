"""`spe benchmark parts`: both ways of each part do the same, and the table says how long they took."""

import re
import subprocess
import sys

import pytest
import torch
from project import ROOT

from spe_dist.benchmark.parts import Comparison, Contrast, in_turn
from spe_dist.benchmark.plain_contrast import plain_contrast
from spe_dist.pretraining.objectives import contrastive


@pytest.mark.parametrize("normalize", [True, False])
def test_both_forms_of_contrast_give_the_same_loss_and_gradient(normalize):
    contrast = Contrast(4, 300, 16, normalize)
    (ours, gradient), (plain, expected) = contrast.run(contrastive), contrast.run(plain_contrast)
    torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-6)
    assert gradient.norm() > 0 and (gradient - expected).norm() <= 1e-4 * expected.norm()


def test_fewer_bits_change_more():
    errors = Contrast(4, 300, 16).rounding()
    assert 0 < errors["tf32"].gradient < errors["bfloat16"].gradient < 0.01


def test_ways_take_turns_and_the_first_round_does_not_count(monkeypatch):
    clock, calls = iter(range(100)), []
    monkeypatch.setattr("time.process_time", lambda: float(next(clock)))
    found = in_turn(lambda: calls.append("ours"), lambda: (calls.append("plain"), next(clock)), 3)
    assert calls == ["ours", "plain"] * 4
    assert found == Comparison(1.0, 2.0, 2.0)


@pytest.mark.slow
def test_the_command_prints_a_row_for_each_part():
    small = "--queries 4 --keys 500 --key_size 16 --parameters 5000 --size 2x128 --batch 32 --rounds 1".split()
    command = [sys.executable, "-m", "spe_dist", "benchmark", "parts", *small]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = ["contrast, 4 queries, 500 keys of 16", "average of 5,000", r"last layer of 2x128 for \d+% of the"]
    for part in (*expected, "activation checkpointing of 2x128", "dropout of 2x128 by slot"):
        assert re.search(rf"^{part}.* [\d.]+ +[\d.]+ +[\d.]+x$", done.stdout, re.MULTILINE), done.stdout
    spared = re.search(r"take ([\d.]+) MiB at most, ([\d.]+) without", done.stdout)
    assert float(spared[1]) < float(spared[2])
    for kind in ("tf32", "float16", "bfloat16"):
        assert re.search(rf"^{kind}( +[\d.]+e-\d\d){{4}}$", done.stdout, re.MULTILINE), done.stdout
