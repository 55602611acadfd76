"""The model in its DeepSpeed engine, and the key encoder with its queues beside it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from spe_dist.config.pretraining import Config
from spe_dist.distributed.context import RankContext
from spe_dist.distributed.deepspeed_config import Precision, product_dtype
from spe_dist.distributed.engine import TrainingEngine
from spe_dist.distributed.weights import weight_source
from spe_dist.moco import KeyQueue, MomentumContrast, MomentumKeyEncoder, ShardedKeyQueue
from spe_dist.model.loading import LoadedEncoder
from spe_dist.model.start.assembly import keep
from spe_dist.model.start.build import build_empty_key_encoder, build_key_encoder, build_pretraining_model
from spe_dist.training.optimizer import make_adamw, optimizer_device
from spe_dist.training.rates.groups import make_groups


def build_engine(
    config: Config,
    loaded: LoadedEncoder,
    ds_config: dict[str, Any],
    precision: Precision,
    context: RankContext,
) -> tuple[TrainingEngine, MomentumContrast | None]:
    """The model in its engine, and MoCo beside it where CSPO is on. A collective."""
    loaded.encoder.product_dtype = product_dtype(precision)
    model = build_pretraining_model(config, loaded.encoder, loaded.mlm_state)
    keep(model)
    stage = ds_config["zero_optimization"]["stage"]
    sharded = shards_keys(config, stage)
    key_module = None
    if config.objectives.cspo:
        key_module = (build_empty_key_encoder if sharded or stage == 3 else build_key_encoder)(model, config)
    device, layers = optimizer_device(ds_config, context.device), loaded.bert_config.num_hidden_layers

    def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
        return make_adamw(make_groups(model, layers, config.optimizer), config, device)

    engine = TrainingEngine(model, make_optimizer, ds_config, precision, context)
    if key_module is None:
        return engine, None
    query = engine.module.get_submodule("spe")
    moco, queues = config.moco, [build_queue(config, context) for _ in range(2)]
    key_module.to(engine.dtype)
    if not sharded:
        key_module = key_module.to_empty(device=context.device) if stage == 3 else key_module.to(context.device)
    keys = MomentumKeyEncoder(
        key_module,
        weight_source(query, context.rank, context.ranks),
        context,
        moco.momentum,
        moco.average,
        query,
        compiled=True if config.train.compile else None,
        parts=key_module.parts() if sharded else None,
    )
    return engine, MomentumContrast(keys, *queues)


def build_queue(config: Config, context: RankContext) -> KeyQueue | ShardedKeyQueue:
    """An empty queue of keys, or this rank's part of one; a single rank holds all keys in any case."""
    moco = config.moco
    size = config.model.key_size
    dtype = getattr(torch, moco.queue_dtype)
    if moco.queue == "sharded" and context.ranks > 1:
        return ShardedKeyQueue(moco.queue_keys, size, context.rank, context.ranks, dtype, context.device)
    return KeyQueue(moco.queue_keys, size, dtype, context.device)


def shards_keys(config: Config, zero_stage: int) -> bool:
    """Whether the key encoder's weights are sharded over the ranks, not only its average."""
    moco = config.moco
    if moco.key_weights == "auto":
        return zero_stage == 3 and moco.average == "sharded"
    return moco.key_weights == "sharded"
