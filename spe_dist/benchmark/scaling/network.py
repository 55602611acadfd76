"""What the scaling of a network depends on: its parameters, operations and activations, found on the device `meta`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from spe_dist.benchmark.pretraining.flops import step_flops
from spe_dist.benchmark.pretraining.sentences import MadeUpSentences
from spe_dist.benchmark.pretraining.work import Work
from spe_dist.benchmark.scaling.traffic import Plan
from spe_dist.config.pretraining import Config
from spe_dist.data.batches.order import Order
from spe_dist.data.batches.stream import StepBuilder
from spe_dist.distributed.deepspeed_config import (
    DTYPES,
    BatchPlan,
    Precision,
    complete,
    fit_to_model,
    load_deepspeed_config,
)
from spe_dist.model.encoder import PackedBertEncoder
from spe_dist.model.loading import random_config
from spe_dist.model.start.build import build_key_encoder, build_pretraining_model, largest_part
from spe_dist.pretraining.build_engine import shards_keys
from spe_dist.pretraining.dry_run import held_memory
from spe_dist.training.footprint import rank_memory, saved_activations

META = torch.device("meta")
SAMPLE_SENTENCES = 256


@dataclass(frozen=True)
class Network:
    """Figures of a network; those of sentences are means over made-up ones."""

    config: Config
    precision: Precision
    parameters: int
    key_parameters: int
    key_size: int
    key_parts: int
    largest_key_part: int  # its parameters
    sentence_flops: float
    sentence_pieces: float  # in both views
    sentence_saved: float  # bytes that a backward pass needs of a GPU's forward pass

    @classmethod
    def of(cls, work: Work, precision: Precision) -> Network:
        """The network of `work`, with nothing allocated."""
        config = work.config()
        store = MadeUpSentences(work.vocabulary, work.pieces, config.data.max_pieces)
        order = Order(store.block_sentences, 0, 0, SAMPLE_SENTENCES)
        [batch] = StepBuilder(store, config.corruption, order, SAMPLE_SENTENCES, 0, 1).build(0).micro_batches
        with META:
            encoder = PackedBertEncoder(random_config(config.model, work.vocabulary))
            model = build_pretraining_model(config, encoder)
            keys = build_key_encoder(model, config) if config.objectives.cspo else None
        model.to(DTYPES[precision]).train()
        there = batch.to(META)
        saved = saved_activations(model, lambda: model(there))
        return cls(
            config=config,
            precision=precision,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            key_parameters=sum(parameter.numel() for parameter in keys.parameters()) if keys is not None else 0,
            key_size=config.model.key_size,
            key_parts=len(keys.parts()) if keys is not None else 0,
            largest_key_part=largest_part(keys) if keys is not None else 0,
            sentence_flops=step_flops(config, work.vocabulary, batch, config.moco.queue_keys) / SAMPLE_SENTENCES,
            sentence_pieces=batch.n_tokens / SAMPLE_SENTENCES,
            sentence_saved=saved / SAMPLE_SENTENCES,
        )

    def plan(self, ranks: int, stage: int, rank_sentences: int, accumulation: int) -> Plan:
        """A run of this network with its settings."""
        moco = self.config.moco
        return Plan(
            parameters=self.parameters,
            key_parameters=self.key_parameters,
            key_size=self.key_size,
            ranks=ranks,
            stage=stage,
            rank_sentences=rank_sentences,
            accumulation=accumulation,
            precision=self.precision,
            queue_dtype=moco.queue_dtype,
            average=moco.average,
            queue_keys=moco.queue_keys,
            queue=moco.queue,
            key_parts=self.key_parts if shards_keys(self.config, stage) else 0,
        )

    def memory(self, plan: Plan) -> Mapping[str, int]:
        """Bytes of a GPU by what takes them, as `spe pretrain --dry_run` has them."""
        settings = (
            {"zero_optimization": {"stage": 0}} if plan.stage == 0 else load_deepspeed_config(f"zero{plan.stage}")
        )
        micro_batch = plan.rank_sentences // plan.accumulation
        batch = BatchPlan(plan.global_batch, plan.ranks, plan.accumulation, micro_batch)
        if plan.stage:
            settings = complete(settings, self.config, batch, self.precision)
        settings = fit_to_model(settings, self.parameters) if plan.stage else settings
        counts = (self.parameters, self.key_parameters, self.largest_key_part)
        held = held_memory(self.config, settings, self.precision, batch, *counts)
        saved = int(self.sentence_saved * plan.rank_sentences / plan.accumulation)
        return rank_memory(held, saved, "cuda", 0)
