"""The held-out figures come out alike from a plain model and from a sharded engine on two ranks."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from spe_dist.config.pretraining import Config, ModelConfig, TrainConfig
from spe_dist.data.shards.blocks import Block
from spe_dist.distributed.context import start_ranks
from spe_dist.distributed.engine import TrainingEngine
from spe_dist.distributed.launch import detect
from spe_dist.model.loading import load_encoder
from spe_dist.model.start.build import build_key_encoder, build_pretraining_model
from spe_dist.pretraining.evaluation import HeldOutEvaluation

pytestmark = pytest.mark.distributed

VOCABULARY = 40


class MadeStore:
    """37 sentences of 5 to 7 words of 1 or 2 pieces."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        words = rng.integers(5, 8, 37)
        pieces_W = rng.integers(1, 3, words.sum())
        word_offsets = np.concatenate([[0], words.cumsum()])
        first_W = np.concatenate([[0], pieces_W.cumsum()])
        self.manifest = SimpleNamespace(cls_id=1, sep_id=2, mask_id=3, vocabulary_size=VOCABULARY)
        self.block_sentences, self.n_sentences, self.first_sentence_id = np.array([37]), 37, 0
        self._block = Block(
            0,
            rng.integers(5, VOCABULARY, first_W[-1]),
            first_W[word_offsets],
            first_W[:-1] - np.repeat(first_W[word_offsets[:-1]], words),
            word_offsets,
        )

    def block(self, index):
        return self._block


CONFIG = Config(
    model=ModelConfig(
        hidden_size=16, layers=1, attention_heads=2, intermediate_size=32, span_size=12, attention_size=8,
        position_size=4, cnn_channels=4, contrastive_size=10, tbo_offset_size=6,
    ),
    train=TrainConfig(kernels="torch"),
)  # fmt: skip


def figures(stage, micro_batch=6):
    """What every rank gets; stage 0 means no engine."""
    context = start_ranks(detect(), timeout_s=60)
    model = build_pretraining_model(CONFIG, load_encoder(None, CONFIG.model, VOCABULARY, 3).encoder).eval()
    forward, key_module = model, build_key_encoder(model, CONFIG)
    if stage:
        ds_config = {
            "train_micro_batch_size_per_gpu": 1,
            "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 20},
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        }
        make_optimizer = partial(lambda model: torch.optim.AdamW(model.parameters()))
        forward = TrainingEngine(model, make_optimizer, ds_config, "float32", context)
        forward.eval()
    evaluation = HeldOutEvaluation(MadeStore(), CONFIG, context, context.device, micro_batch, {})
    return evaluation(forward, key_module)


@pytest.fixture(scope="module")
def expected(run_ranks):
    return run_ranks(figures, 1, 0)[0]


@pytest.mark.parametrize("stage", [2, 3])
def test_two_ranks_of_an_engine_give_the_figures_of_one_plain_model(run_ranks, expected, stage):
    for found in run_ranks(figures, 2, stage):
        assert found.keys() == expected.keys() and "heldout/top1_same_layout" in found
        assert found == pytest.approx(expected, abs=1e-5)
