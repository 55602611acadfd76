"""What a fine-tuning would be: data, length, network, memory and disk, without training and without an output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from spe_dist.config.finetuning import FinetuneConfig
from spe_dist.distributed.checkpoint import Checkpoints
from spe_dist.distributed.context import RankContext
from spe_dist.distributed.deepspeed_config import DTYPES, BatchPlan, Precision, has_float32_weights
from spe_dist.extraction.joint.model import JointModel
from spe_dist.finetuning import resume
from spe_dist.finetuning.build import build_model
from spe_dist.finetuning.data import TrainingData, check_ranks, prepare_training, read_corpora, warnings_of
from spe_dist.finetuning.start import check_windows, language_lines, open_start, with_language
from spe_dist.training.footprint import (
    ADAM_BYTES,
    MASTER_BYTES,
    activations,
    disk_line,
    engine_memory,
    memory_line,
    rank_memory,
    saving_lines,
)
from spe_dist.training.resume import settle_stage
from spe_dist.utils.memory import resident_bytes
from spe_dist.utils.run_files import CHECKPOINTS_FOLDER
from spe_dist.utils.wording import how_many


def describe_finetuning(
    config: FinetuneConfig, ds_config: dict[str, Any], plan: BatchPlan, precision: Precision, device_type: str
) -> list[str]:
    """Lines on the run that these settings would make, for `plan.ranks` ranks.

    Raises:
        SpeError: what the run itself would refuse before its first step.
    """
    process = resident_bytes()
    context = RankContext(0, 1, 0, torch.device("cpu"), None)
    start = open_start(config)
    config = with_language(config, start)
    corpora = read_corpora(config)
    data = prepare_training(config, corpora, start.tokenizer, check_windows(config, start))
    check_ranks(data, plan.ranks)
    asked = resume.run_state(config, corpora, data)
    checkpoints = Checkpoints(Path(config.train.output) / CHECKPOINTS_FOLDER, config.train.keep_checkpoints, context)
    point, _ = resume.choose_start(config, context, checkpoints, asked)
    ds_config, point = settle_stage(config.train, ds_config, precision, plan.ranks, point)
    model = build_model(config, corpora.labels, start)
    parameters = sum(p.numel() for p in model.parameters())

    width, stage = DTYPES[precision].itemsize, ds_config["zero_optimization"]["stage"]
    memory = engine_memory(parameters, ds_config, precision, plan.ranks)
    if not has_float32_weights(precision) or stage == 3:
        memory["copy for evaluation"] = 4 * parameters
    saved = _activations(data, plan, model) * width // 4
    memory = rank_memory(memory, saved, device_type, process)
    engine = (MASTER_BYTES + ADAM_BYTES) * parameters
    evaluated = "".join(f", {corpus.n_sentences:,} {name}" for name, corpus in corpora.evaluated().items())
    labels = corpora.labels
    at = f"step {point.position.step:,}" if point.checkpoint else "step 0"
    return [
        f"data: {data.n_sentences:,} training sentences{evaluated}; "
        f"{how_many(len(labels.entity_types), 'entity type')}, {how_many(len(labels.relation_types), 'relation type')}",
        *warnings_of(corpora),
        start.summary(),
        *language_lines(config, start),
        f"model: {parameters:,} parameters",
        f"batch: up to {how_many(plan.global_batch, 'sentence')} a step over {how_many(plan.ranks, 'rank')}",
        f"length: {how_many(data.epochs, 'epoch')} x {how_many(data.steps_per_epoch, 'step')} = {data.total_steps:,} "
        f"steps at most, from {at}",
        f"engine: ZeRO stage {stage}, {precision}",
        memory_line(memory, device_type),
        *saving_lines(engine, plan.ranks, config.train.background_saving),
        disk_line(engine + 4 * parameters, config.train.keep_checkpoints, config.train.output),
        *point.notes,
    ]


def _activations(data: TrainingData, plan: BatchPlan, model: JointModel) -> int:
    """Bytes of float32 that a rank's batch needs for its backward: the first step's, gold entities and predicted."""
    batch, gold_B, _ = data.batch(0, 0, plan.ranks)
    model.train()
    return activations(model, model.spe.encoder.encoder, lambda: model(batch, torch.ones_like(gold_B)))
