"""Small models and batches for tests of the training step, without shards."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from spe_dist.config import Config
from spe_dist.config_loading import resolve
from spe_dist.data.corruption import SentenceBatch, corrupt
from spe_dist.data.packed import PackedBatch
from spe_dist.data.packing import SpecialPieces, pack
from spe_dist.data.ragged import borders
from spe_dist.distributed.context import start_ranks
from spe_dist.distributed.deepspeed_config import BatchPlan, complete
from spe_dist.distributed.launch import detect

VOCABULARY = 60
SMALL = {
    "hidden_size": 32,
    "layers": 2,
    "attention_heads": 2,
    "intermediate_size": 48,
    "span_size": 24,
    "cnn_channels": 8,
    "attention_size": 16,
    "position_size": 8,
    "tbo_offset_size": 8,
    "contrastive_size": 16,
    "queue_keys": 20,
    "momentum": 0.9,
    "dropout": 0.0,
    "learning_rate": 1e-2,
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
    return pack(
        corrupt(sentences, ids, epoch, 0, config.corruption), SpecialPieces(1, 2, 3), config.corruption.view_masks
    )


def build_step(config: Config, stage: int, accumulation: int, make_optimizer=None, precision="float32", **ds):
    """(TrainingStep, RankContext) in a rank started by `run_ranks`."""
    from spe_dist.distributed.engine import TrainingEngine
    from spe_dist.model.loading import load_encoder
    from spe_dist.training.build_engine import build_engine
    from spe_dist.training.step import TrainingStep

    torch.set_num_threads(1)
    context = start_ranks(detect(), 60.0)
    global_batch = config.train.global_batch_sentences
    plan = BatchPlan(global_batch, context.ranks, accumulation, global_batch // context.ranks // accumulation)
    ds_config = complete({"zero_optimization": {"stage": stage}, **ds}, config, plan, precision)
    loaded = load_encoder(None, config.model, VOCABULARY, config.train.seed)
    original = TrainingEngine.__init__
    if make_optimizer is not None:

        def patched(self, model, _, *rest):
            original(self, model, make_optimizer, *rest)

        TrainingEngine.__init__ = patched
    try:
        engine, moco = build_engine(config, loaded, ds_config, precision, context)
    finally:
        TrainingEngine.__init__ = original
    if moco is not None:
        moco.start()
    engine.train()
    return TrainingStep(engine, moco, config, context), context


def micro_batches(config: Config, step: int, rank: int, ranks: int, accumulation: int) -> list[PackedBatch]:
    """This rank's part of the global batch of a step, cut into micro-batches, in slot order."""
    global_batch = config.train.global_batch_sentences
    size = global_batch // ranks // accumulation
    first = step * global_batch + rank * (global_batch // ranks)
    return [make_batch(config, first + i * size, size) for i in range(accumulation)]


@pytest.fixture
def small():
    """The helpers of this file and a function that makes small configs."""

    class Small:
        config = staticmethod(lambda **given: resolve([SMALL, {"global_batch_sentences": 8}, given]))
        build_step = staticmethod(build_step)
        micro_batches = staticmethod(micro_batches)
        sgd = staticmethod(lambda model: torch.optim.SGD(model.parameters(), lr=1.0))
        partial = staticmethod(partial)

    return Small
