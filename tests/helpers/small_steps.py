"""Training steps of a small model on a made-up corpus, in real ranks, without shards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unittest import mock

import numpy as np
import torch
from small_runs import PRETRAINING_NETWORK

from spe_dist.config.loading import resolve
from spe_dist.config.pretraining import Config
from spe_dist.data.batches import assemble
from spe_dist.data.batches.packed import PackedBatch
from spe_dist.data.batches.packing import SpecialPieces
from spe_dist.data.shards.reader import SentenceBatch
from spe_dist.distributed.context import RankContext, start_ranks
from spe_dist.distributed.deepspeed_config import BatchPlan, Precision, complete
from spe_dist.distributed.launch import detect
from spe_dist.distributed.sharded_start import sharded_start
from spe_dist.model.loading import load_encoder
from spe_dist.pretraining import build_engine
from spe_dist.pretraining.step import TrainingStep
from spe_dist.utils.ragged import borders

VOCABULARY = 60
SMALL = {
    **PRETRAINING_NETWORK,
    "layers": 2,
    "queue_keys": 20,
    "momentum": 0.9,
    "dropout": 0.0,
    "learning_rate": 1e-2,
    "global_batch_sentences": 8,
}


def make_batch(config: Config, first_id: int, n_sentences: int, epoch: int = 0) -> PackedBatch:
    """Sentences first_id .. first_id + n - 1 of an endless made-up corpus: a sentence depends on its id only."""
    words, pieces = [], []
    for sentence_id in range(first_id, first_id + n_sentences):
        generator = np.random.default_rng(sentence_id)
        words.append(generator.integers(1, 4, size=generator.integers(4, 15)))
        pieces.append(generator.integers(5, VOCABULARY, size=words[-1].sum()))
    word_sizes = np.concatenate(words)
    sentences = SentenceBatch(
        piece_ids_T=np.concatenate(pieces),
        piece_borders_N1=borders(np.array([len(p) for p in pieces])),
        first_piece_W=borders(word_sizes)[:-1],
        word_borders_N1=borders(np.array([len(w) for w in words])),
    )
    ids = np.arange(first_id, first_id + n_sentences)
    return assemble.make_batch(
        sentences, ids, epoch, 0, SpecialPieces(1, 2, 3, VOCABULARY), config.corruption, config.objectives
    )


def start() -> RankContext:
    """The context of a rank started by `run_ranks`; once a rank."""
    return start_ranks(detect(), 60.0)


def small_config(**given: Any) -> Config:
    return resolve([SMALL, given])


def build_step(
    config: Config,
    context: RankContext,
    stage: int,
    accumulation: int,
    precision: Precision = "float32",
    zero: Mapping[str, Any] | None = None,
    **ds: Any,
) -> TrainingStep:
    """A training step with an engine of its own; a rank may build several. `zero`: further settings of ZeRO."""
    global_batch = config.train.global_batch_sentences
    plan = BatchPlan(global_batch, context.ranks, accumulation, global_batch // context.ranks // accumulation)
    ds_config = complete({"zero_optimization": {"stage": stage, **(zero or {})}, **ds}, config, plan, precision)
    with sharded_start(ds_config, precision, context):
        loaded = load_encoder(None, config.model, VOCABULARY, config.train.seed)
        engine, moco = build_engine.build_engine(config, loaded, ds_config, precision, context)
    if moco is not None:
        moco.start()
    engine.train()
    return TrainingStep(engine, moco, config, context)


def build_descent_step(
    config: Config, context: RankContext, stage: int, accumulation: int, **given: Any
) -> TrainingStep:
    """The same with plain gradient descent at the learning rate that the step is called with."""
    untested = {"zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False}
    with mock.patch.object(build_engine, "make_adamw", lambda groups, *_: _plain_descent(groups)):
        return build_step(config, context, stage, accumulation, **untested, **given)


def micro_batches(config: Config, context: RankContext, step: int, accumulation: int) -> list[PackedBatch]:
    """This rank's part of the global batch of a step, cut into micro-batches, in slot order."""
    global_batch = config.train.global_batch_sentences
    size = global_batch // context.ranks // accumulation
    first = step * global_batch + context.rank * (global_batch // context.ranks)
    return [make_batch(config, first + i * size, size) for i in range(accumulation)]


def _plain_descent(groups: list[dict[str, Any]]) -> torch.optim.SGD:
    return torch.optim.SGD([parameter for group in groups for parameter in group["params"]])
