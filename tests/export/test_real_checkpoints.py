"""Checkpoints of real runs at every ZeRO stage, converted."""

from __future__ import annotations

import pytest
import torch
from small_runs import PRETRAINING, command_line, zero_stage
from transformers import AutoModel

from spe_dist import pretrain
from spe_dist.cli import export
from spe_dist.distributed.checkpoint import find_checkpoint
from spe_dist.export import SpanPairEncoder, load_pretraining_model
from spe_dist.training.metrics import read_rows

SETTINGS = {**PRETRAINING, "steps": 6, "momentum": 0.5, "evaluate_sentences": 16, "precision": "bfloat16"}


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
@pytest.mark.parametrize("stage", [1, pytest.param(2, marks=pytest.mark.long), 3])
def test_a_run_in_bfloat16_learns_and_converted_holds_the_masters_of_deepspeed_and_the_weights_of_training(
    run_ranks, demo_shards, tmp_path, stage
):
    run = tmp_path / "run"
    argv = command_line({**SETTINGS, "shards": demo_shards, "output": run})
    assert run_ranks(pretrain.main, 2, [*argv, zero_stage(tmp_path, stage)]) == [0, 0]
    rows = read_rows(run / "metrics.jsonl", "train")
    assert rows[-1]["tbo_loss"] < rows[0]["tbo_loss"]
    checkpoint = find_checkpoint(run)

    for encoder in ("query", "key"):
        assert export.main([str(run), str(tmp_path / encoder), "--encoder", encoder]) == 0
        info = AutoModel.from_pretrained(tmp_path / encoder, output_loading_info=True)[1]
        assert not info["missing_keys"] and not info["unexpected_keys"]

    exported = load_pretraining_model(tmp_path / "query").state_dict()
    masters = masters_by_deepspeed(checkpoint, stage)
    assert exported.keys() == masters.keys()
    assert all(tensor.dtype == torch.float32 for tensor in exported.values())
    assert all(torch.equal(exported[name], masters[name]) for name in masters)
    if stage < 3:  # at stage 3 the ranks' files hold no whole 16-bit weights
        training = torch.load(checkpoint / "engine" / "mp_rank_00_model_states.pt", weights_only=False)["module"]
        assert all(torch.equal(exported[name].bfloat16(), training[name]) for name in exported)

    average = torch.load(checkpoint / "moco.pt", weights_only=True)["average"]
    key = SpanPairEncoder.from_pretrained(tmp_path / "key").module.state_dict()
    assert key.keys() == average.keys() and all(torch.equal(key[name], average[name]) for name in key)
    assert any(not torch.equal(tensor, exported[f"spe.{name}"]) for name, tensor in key.items())
