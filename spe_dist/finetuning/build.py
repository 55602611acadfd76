"""The joint model of a fine-tuning run, its engine, and what is written beside the weights of its best epoch."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from spe_dist.config.finetuning import FinetuneConfig
from spe_dist.distributed.context import RankContext
from spe_dist.distributed.deepspeed_config import Precision, has_float32_weights, product_dtype
from spe_dist.distributed.engine import TrainingEngine
from spe_dist.export.card import BASE_MODEL
from spe_dist.extraction.corpora.corpus import Labels
from spe_dist.extraction.joint.card import SCORES, card_scores
from spe_dist.extraction.joint.checkpoint import Description
from spe_dist.extraction.joint.folder import EXTRACTION_SETTINGS, joint_model
from spe_dist.extraction.joint.model import JointModel
from spe_dist.extraction.scoring.scores import Scores
from spe_dist.finetuning.data import TrainingData
from spe_dist.finetuning.learning_rates import RateGroups, rate_groups
from spe_dist.finetuning.start import SPAN_ENCODER, StartNetwork
from spe_dist.training.optimizer import make_adamw, optimizer_device
from spe_dist.utils.files import shared_name
from spe_dist.utils.randomness import Purpose, derive_seed


def build_model(config: FinetuneConfig, labels: Labels, start: StartNetwork) -> JointModel:
    """The joint model around the start; its heads are drawn from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.train.seed, Purpose.HEAD_WEIGHTS))
        start.spe.encoder.encoder.recompute = config.train.activation_checkpointing
        model = joint_model(start.spe, labels, vars(config.model), config.model.dropout, config.train.kernels)
        if model.context_encoder is not None and SPAN_ENCODER in start.random:
            model.context_encoder.draw()
        return model


def build_engine(
    config: FinetuneConfig, model: JointModel, ds_config: dict[str, Any], precision: Precision, context: RankContext
) -> tuple[TrainingEngine, RateGroups]:
    """The model in its engine, with a rate for each layer. A collective."""
    model.spe.encoder.product_dtype = product_dtype(precision)
    model = model.to(context.device)  # before the optimizer is made
    rates = rate_groups(model, model.spe.encoder.config.num_hidden_layers, config.optimizer)
    device = optimizer_device(ds_config, context.device)
    return TrainingEngine(
        model, lambda _: make_adamw(rates.groups, config, device), ds_config, precision, context
    ), rates


def plain_model(model: JointModel, ds_config: dict[str, Any], precision: Precision, device: torch.device) -> JointModel:
    """What takes the float32 masters for evaluation: `model` itself where the engine trains them in it, else a copy."""
    if has_float32_weights(precision) and ds_config["zero_optimization"]["stage"] < 3:
        return model
    return copy.deepcopy(model).to(device)


def extraction_settings(config: FinetuneConfig, max_pieces: int) -> dict[str, Any]:
    """What a reader of the fine-tuned folder needs beside the network's settings."""
    own = {"max_pieces": max_pieces, "language": config.data.text_language}
    values = {**vars(config.data), **vars(config.model), **own}
    return {name: values[name] for name in EXTRACTION_SETTINGS}


def describe_model(
    config: FinetuneConfig, start: StartNetwork, data: TrainingData, labels: Labels, settings: dict[str, Any]
) -> Description:
    """What a checkpoint says of its model beside the weights."""
    facts = model_facts(config, start, data, 0, None)
    bert_config = start.spe.encoder.config.to_dict()
    return Description(bert_config, start.tokenizer, labels, settings, facts, data.steps_per_epoch)


def model_facts(
    config: FinetuneConfig, start: StartNetwork, data: TrainingData, epoch: int, scores: Scores | None
) -> dict[str, Any]:
    """What the card of the fine-tuned folder says of this model."""
    facts: dict[str, Any] = {
        "name": Path(config.train.output).absolute().name,
        "start": shared_name(config.model.start) if config.model.start else "random weights",
        "training_corpus": shared_name(str(config.data.train)),
        "training_sentences": data.n_sentences,
        "epoch": epoch,
        "seed": config.train.seed,
    }
    if start.base_model:
        facts[BASE_MODEL] = start.base_model
    if scores is not None:
        facts[SCORES] = {"dev": card_scores(str(config.data.dev), scores)}
    return facts
