"""Checkpoints of real runs at every ZeRO stage, converted."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from spe_dist import pretrain
from spe_dist.distributed.checkpoint import find_checkpoint
from spe_dist.export import load, load_pretraining_model

SETTINGS = {
    "hidden_size": 32,
    "layers": 1,
    "attention_heads": 2,
    "intermediate_size": 48,
    "span_size": 24,
    "cnn_channels": 8,
    "attention_size": 16,
    "position_size": 8,
    "tbo_offset_size": 8,
    "contrastive_size": 16,
    "queue_keys": 50,
    "global_batch_sentences": 16,
    "micro_batch_sentences": 4,
    "steps": 3,
    "learning_rate": 3e-3,
    "momentum": 0.5,
    "evaluate_every_steps": 0,
    "evaluate_sentences": 16,
    "loader_workers": 0,
    "precision": "bfloat16",
}


def masters_by_deepspeed(folder, stage):
    """The float32 masters put together from the files of DeepSpeed's ranks, by its own tool where that can."""
    if stage == 1:
        return masters_of_stage_1(folder / "engine")
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    return {n: t.clone() for n, t in get_fp32_state_dict_from_zero_checkpoint(str(folder), tag="engine").items()}


def masters_of_stage_1(folder):
    """zero_to_fp32 cannot read bfloat16 at stage 1: each rank holds its part of every group's flat masters."""
    files = sorted(folder.glob("bf16_zero_pp_rank_*_optim_states.pt"))
    ranks = [torch.load(file, weights_only=False)["optimizer_state_dict"] for file in files]
    groups = torch.load(folder / "mp_rank_00_model_states.pt", weights_only=False)["param_shapes"]
    masters = {}
    for number, shapes in enumerate(groups):
        flat = torch.cat([rank["single_partition_of_fp32_groups"][number] for rank in ranks])
        for name, shape in shapes.items():
            masters[name], flat = flat[: shape.numel()].view(shape).clone(), flat[shape.numel() :]
    return masters


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_converted_run_holds_the_masters_of_deepspeed_and_the_weights_of_training(
    run_ranks, demo_shards, tmp_path, stage
):
    run, zero = tmp_path / "run", tmp_path / "zero.json"
    zero.write_text(json.dumps({"zero_optimization": {"stage": stage}}))
    settings = {**SETTINGS, "shards": demo_shards, "output": run, "deepspeed": zero}
    assert run_ranks(pretrain.main, 2, [f"--{name}={value}" for name, value in settings.items()]) == [0, 0]
    checkpoint = find_checkpoint(run)

    path = Path(__file__).resolve().parents[2] / "tools" / "convert_checkpoint.py"
    spec = importlib.util.spec_from_file_location("convert_checkpoint", path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    for encoder in ("query", "key"):
        assert tool.main([str(run), str(tmp_path / encoder), "--encoder", encoder]) == 0
        info = AutoModel.from_pretrained(tmp_path / encoder, output_loading_info=True)[1]
        assert not info["missing_keys"] and not info["unexpected_keys"]

    exported = load_pretraining_model(tmp_path / "query").state_dict()
    (masters,) = run_ranks(masters_by_deepspeed, 1, checkpoint, stage)
    assert exported.keys() == masters.keys()
    assert all(torch.equal(exported[name], masters[name]) for name in masters)
    if stage < 3:  # at stage 3 the ranks' files hold no whole 16-bit weights
        training = torch.load(checkpoint / "engine" / "mp_rank_00_model_states.pt", weights_only=False)["module"]
        assert all(torch.equal(exported[name].bfloat16(), training[name]) for name in exported)

    average = torch.load(checkpoint / "moco.pt", weights_only=True)["average"]
    key = load(tmp_path / "key").state_dict()
    assert key.keys() == average.keys() and all(torch.equal(key[name], average[name]) for name in key)
    assert any(not torch.equal(tensor, exported[f"spe.{name}"]) for name, tensor in key.items())
