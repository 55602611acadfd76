"""Checkpoints of real runs at every ZeRO stage, converted."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_runs import PRETRAINING, command_line, zero_stage
from transformers import AutoModel

from spe_dist import pretrain
from spe_dist.cli import export
from spe_dist.distributed.checkpoint import find_checkpoint
from spe_dist.distributed.engine import TrainingEngine
from spe_dist.distributed.fragments.tensors import read_whole
from spe_dist.export import SpanPairEncoder, load_pretraining_model
from spe_dist.training.metrics import read_rows

SETTINGS = {**PRETRAINING, "steps": 6, "momentum": 0.5, "evaluate_sentences": 16, "precision": "bfloat16"}


def train_and_keep(argv, folder):
    """Train in this rank; whenever a checkpoint is written, DeepSpeed's masters and the weights go to files."""
    fragments = TrainingEngine.fragments

    def keep_and_give(engine):
        masters = engine.master_weights()
        if engine.context.is_main:
            save_file(masters, folder / "masters.safetensors")
            if engine.zero_stage < 3:
                weights = {name: p.detach().clone() for name, p in engine.module.named_parameters()}
                save_file(weights, folder / "weights.safetensors")
        return fragments(engine)

    TrainingEngine.fragments = keep_and_give
    return pretrain.main(argv)


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("stage", [1, pytest.param(2, marks=pytest.mark.long), 3])
def test_a_run_in_bfloat16_learns_and_converted_holds_the_masters_of_deepspeed_and_the_weights_of_training(
    run_ranks, demo_shards, tmp_path, stage
):
    run = tmp_path / "run"
    argv = command_line({**SETTINGS, "shards": demo_shards, "output": run})
    assert run_ranks(train_and_keep, 2, [*argv, zero_stage(tmp_path, stage)], tmp_path) == [0, 0]
    rows = read_rows(run / "metrics.jsonl", "train")
    assert rows[-1]["tbo_loss"] < rows[0]["tbo_loss"]
    checkpoint = find_checkpoint(run)

    for encoder in ("query", "key"):
        assert export.main([str(run), str(tmp_path / encoder), "--encoder", encoder]) == 0
        info = AutoModel.from_pretrained(tmp_path / encoder, output_loading_info=True)[1]
        assert not info["missing_keys"] and not info["unexpected_keys"]

    exported = load_pretraining_model(tmp_path / "query").state_dict()
    masters = load_file(tmp_path / "masters.safetensors")
    assert exported.keys() == masters.keys()
    assert all(tensor.dtype == torch.float32 for tensor in exported.values())
    assert all(torch.equal(exported[name], masters[name]) for name in masters)
    if stage < 3:  # at stage 3 no rank holds whole 16-bit weights
        training = load_file(tmp_path / "weights.safetensors")
        assert all(torch.equal(exported[name].bfloat16(), training[name]) for name in exported)

    average = read_whole(checkpoint, "key_average")
    key = SpanPairEncoder.from_pretrained(tmp_path / "key").module.state_dict()
    assert key.keys() == average.keys() and all(torch.equal(key[name], average[name]) for name in key)
    assert any(not torch.equal(tensor, exported[f"spe.{name}"]) for name, tensor in key.items())
