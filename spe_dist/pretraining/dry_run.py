"""What a pre-training would be: data, length, network, memory and disk, without training and without an output."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig

from spe_dist.config.pretraining import Config
from spe_dist.data.batches.packed import PackedBatch
from spe_dist.data.batches.stream import StepBuilder
from spe_dist.distributed.checkpoint import Checkpoints
from spe_dist.distributed.context import RankContext
from spe_dist.distributed.deepspeed_config import DTYPES, BatchPlan, Precision, fit_to_model
from spe_dist.model.encoder import PackedBertEncoder
from spe_dist.model.kernels import check_compile
from spe_dist.model.start.build import build_empty_key_encoder, build_pretraining_model, largest_part
from spe_dist.pretraining import build, resume
from spe_dist.pretraining.build_engine import shards_keys
from spe_dist.pretraining.sharded_contrast import FIGURES
from spe_dist.training.footprint import activations, disk_line, engine_memory, memory_line, rank_memory, saving_lines
from spe_dist.training.resume import settle_stage
from spe_dist.utils.memory import resident_bytes
from spe_dist.utils.run_files import CHECKPOINTS_FOLDER
from spe_dist.utils.wording import shown_url

SAMPLE_SENTENCES = 16


def describe_pretraining(
    config: Config, ds_config: dict[str, Any], plan: BatchPlan, precision: Precision, device_type: str
) -> list[str]:
    """Lines on the run that these settings would make, for `plan.ranks` ranks.

    Raises:
        SpeError: what the run itself would refuse before its first step.
    """
    process = resident_bytes()
    if config.train.compile:
        check_compile(torch.device(device_type), ds_config["zero_optimization"]["stage"])
        config = replace(config, train=replace(config.train, compile=False))  # what follows runs once
    context = RankContext(0, 1, 0, torch.device("cpu"), None)
    data = build.open_data(config)
    steps = build.total_steps(config, data.order)
    checkpoints = Checkpoints(Path(config.train.output) / CHECKPOINTS_FOLDER, config.train.keep_checkpoints, context)
    start = resume.choose_start(config, context, checkpoints, data.order)
    ds_config, start = settle_stage(config.train, ds_config, precision, plan.ranks, start)
    with torch.device("meta") if config.model.encoder is None else contextlib.nullcontext():
        loaded, _ = build.open_encoder(config, data.train)
        model = build_pretraining_model(config, loaded.encoder)
    keys = build_empty_key_encoder(model, config) if config.objectives.cspo else None
    parameters = sum(p.numel() for p in model.parameters())
    key_parameters = sum(p.numel() for p in keys.parameters()) if keys is not None else 0

    largest = largest_part(keys) if keys is not None else 0
    fitted = fit_to_model(ds_config, parameters)
    memory = held_memory(config, fitted, precision, plan, parameters, key_parameters, largest, device_type)
    saved = _activations(config, data, plan, loaded.bert_config) * DTYPES[precision].itemsize // 4
    stage = ds_config["zero_optimization"]["stage"]
    memory = rank_memory(memory, saved, device_type, process)
    held_out = data.held_out.n_sentences if data.held_out else 0
    epochs = steps * plan.global_batch / data.order.sentences_per_epoch
    at = f"step {start.position.step:,}" if start.checkpoint else "step 0"
    checkpoint = build.checkpoint_bytes(config, parameters)
    return [
        f"data: {data.train.n_sentences:,} training and {held_out:,} held-out sentences, vocabulary "
        f"{data.train.manifest.vocabulary_size:,}, in {shown_url(config.data.shards or '')}",
        f"model: {parameters:,} parameters, encoder from {config.model.encoder or 'random weights'}"
        + (f"; {key_parameters:,} in the key encoder" if keys is not None else ""),
        f"batch: {plan}",
        f"length: {steps:,} steps = {epochs:.2f} epochs, from {at}",
        f"engine: ZeRO stage {stage}, {precision}",
        memory_line(memory, device_type),
        *saving_lines(checkpoint, plan.ranks, config.train.background_saving),
        disk_line(checkpoint, config.train.keep_checkpoints, config.train.output),
        *start.notes,
    ]


def held_memory(
    config: Config,
    ds_config: dict[str, Any],
    precision: Precision,
    plan: BatchPlan,
    parameters: int,
    key_parameters: int,
    largest_key_part: int,
    device_type: str = "cuda",
) -> dict[str, int]:
    """Bytes that a rank has beside activations, by what they are; `key_parameters` 0: no key encoder and no queues."""
    memory = engine_memory(parameters, ds_config, precision, plan.ranks, device_type)
    stage = ds_config["zero_optimization"]["stage"]
    sliced = parameters if stage in (1, 2) else key_parameters  # stages 1 and 2 cut the whole model into slices
    averaged = min(key_parameters, -(-sliced // plan.ranks)) if config.moco.average == "sharded" else key_parameters
    gathered = largest_key_part * (2 * plan.ranks + 1) // plan.ranks  # a part, the next one, this rank's share of that
    if shards_keys(config, stage):  # keys are made while no gradients are sent
        in_use = gathered * DTYPES[precision].itemsize
        memory["key encoder"] = max(0, in_use - memory.get("gradients being sent", 0))
    else:
        memory["key encoder"] = key_parameters * DTYPES[precision].itemsize
    memory["key average"] = 2 * 4 * averaged
    shares = plan.ranks if config.moco.queue == "sharded" else 1
    memory["queues"] = build.queue_bytes(config, shares) if key_parameters else 0
    if key_parameters and shares > 1:
        size = config.model.key_size  # queries of both directions, and of one what was summed up, before and after
        memory["queries of all ranks"] = 4 * plan.ranks * plan.micro_batch * (2 * size + 3 * (size + FIGURES))
    return memory


def _activations(config: Config, data: build.Data, plan: BatchPlan, bert_config: BertConfig) -> int:
    """Bytes of float32 that a micro-batch's backward needs: of a few sentences of the first step, scaled by pieces.

    They are counted in models of one layer and of two, and each further layer takes as much as the second.
    """
    sample = max(size for size in range(1, min(SAMPLE_SENTENCES, plan.micro_batch) + 1) if plan.micro_batch % size == 0)
    builder = StepBuilder(data.train, config.corruption, data.order, sample, 0, plan.ranks, config.objectives)
    micro_batches = builder.build(0).micro_batches
    first = micro_batches[0]
    share = plan.micro_batch // sample
    pieces = sum(batch.n_tokens for batch in micro_batches[:share])
    counted = [_counted_activations(config, bert_config, layers, first) for layers in (1, 2)]
    further = (bert_config.num_hidden_layers - 1) * (counted[1] - counted[0])
    return (counted[0] + further) * pieces // first.n_tokens


def _counted_activations(config: Config, bert_config: BertConfig, layers: int, batch: PackedBatch) -> int:
    """Of a model of so many layers, all else being equal."""
    shallow = BertConfig.from_dict({**bert_config.to_dict(), "num_hidden_layers": layers})
    with torch.random.fork_rng(devices=[]):
        model = build_pretraining_model(config, PackedBertEncoder(shallow, config.train.kernels)).train()
        return activations(model, model.spe.encoder.encoder, lambda: model(batch))
