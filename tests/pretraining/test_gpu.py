"""Whole runs on a GPU: `pytest -m gpu` on a machine that has one. Each is a process of its own, as users start it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from project import ROOT

from spe_dist.training.metrics import read_rows

pytestmark = pytest.mark.gpu


def pretrain(shards, output, *extra):
    environment = {
        name: value for name, value in os.environ.items() if name not in ("DS_ACCELERATOR", "OMP_NUM_THREADS")
    }
    command = [sys.executable, "spe_dist/pretrain.py", "--preset=demo", f"--shards={shards}", f"--output={output}"]
    command += ["--steps=60", "--evaluate_every_steps=0", "--log_every_steps=1", *extra]
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=540)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout, read_rows(Path(output) / "metrics.jsonl", "train")


@pytest.mark.parametrize("stage", ["zero1", "zero2", "zero3", "zero2_offload"])
@pytest.mark.parametrize("precision", ["auto", "bfloat16", "float32"])
def test_every_stage_and_precision_learns(demo_shards, tmp_path, stage, precision):
    printed, rows = pretrain(
        demo_shards, tmp_path / "run", f"--deepspeed=ds_configs/{stage}.json", f"--precision={precision}"
    )
    assert "cuda:0" in printed
    assert ("float16" if precision == "auto" else precision) in printed
    early, late = (sum(row["tbo_loss"] for row in part) / len(part) for part in (rows[:10], rows[-10:]))
    assert late < early - 0.3
    assert sum(row["applied"] for row in rows) >= 50


def test_a_float16_run_goes_on_from_its_checkpoint_with_loss_scale_and_queues(demo_shards, tmp_path):
    _, whole = pretrain(demo_shards, tmp_path / "whole", "--checkpoint_every_steps=30")
    newest = tmp_path / "whole" / "checkpoints" / "step_00000060" / "state.json"
    newest.unlink()
    _, again = pretrain(demo_shards, tmp_path / "whole", "--checkpoint_every_steps=30", "--resume=auto")
    for before, after in zip(whole, again, strict=True):
        for name in ("step", "loss_scale", "applied", "learning_rate", "queue_fill", "masked_pieces"):
            assert before[name] == after[name], (name, before["step"])
        assert after["loss"] == pytest.approx(before["loss"], rel=1e-2)  # GPU kernels add in no fixed order
