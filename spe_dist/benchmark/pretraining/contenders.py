"""What is measured, in the process of one rank: the training of `spe pretrain` itself, and its plain form."""

from __future__ import annotations

import contextlib
import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from spe_dist.benchmark.collectives import CollectiveCounter
from spe_dist.benchmark.launches import LaunchCounter
from spe_dist.benchmark.pretraining.flops import step_flops
from spe_dist.benchmark.pretraining.phases import REST, PhaseClock, Watch, WatchedStep
from spe_dist.benchmark.pretraining.plain import PlainStep
from spe_dist.benchmark.pretraining.sentences import MadeUpSentences
from spe_dist.benchmark.pretraining.work import Block, Counts, Facts, Spent, Work
from spe_dist.benchmark.product import PlainProduct, device_clock
from spe_dist.config.pretraining import Config
from spe_dist.data.batches.loader import step_loader
from spe_dist.data.batches.order import Order
from spe_dist.data.batches.packed import PackedBatch
from spe_dist.data.batches.stream import StepBuilder, Store
from spe_dist.data.shards.store import ShardStore
from spe_dist.distributed.context import RankContext
from spe_dist.distributed.deepspeed_config import (
    DTYPES,
    Precision,
    choose_precision,
    complete,
    load_deepspeed_config,
    plan_batches,
    product_dtype,
)
from spe_dist.distributed.stage import choose_stage
from spe_dist.moco import MomentumContrast
from spe_dist.model.loading import load_encoder
from spe_dist.pretraining.build_engine import build_engine
from spe_dist.pretraining.step import TrainingStep
from spe_dist.utils.memory import freeze_garbage_collector, peak_memory_gib
from spe_dist.utils.wording import how_many

WARM_UP_STEPS = 2
FIRST_QUEUED_ID = 1 << 40  # of sentences that no batch has
KEYS_DRAWN_AT_ONCE = 1 << 14


class Contender(ABC):
    """One way to train, measured block by block."""

    title: str

    def __init__(self, work: Work, context: RankContext) -> None:
        self.work, self.context = work, context
        self.config = work.config()
        self.now = device_clock(context.device)
        self.store = open_store(work, self.config)
        self.vocabulary = self.store.manifest.vocabulary_size
        self.ds_config = load_deepspeed_config(None)
        if work.stage is not None:
            self.ds_config = {"zero_optimization": {"stage": 0}} if work.stage == 0 else _shipped(work.stage)
        self.precision: Precision = choose_precision(self.config, self.ds_config, context.device.type)
        self.plan = plan_batches(self.config, context.ranks, context.device.type)
        order = Order(self.store.block_sentences, self.config.train.seed, 0, self.plan.global_batch)
        cut = (self.plan.micro_batch, context.rank, context.ranks)
        builder = StepBuilder(self.store, self.config.corruption, order, *cut)
        self.batches = step_loader(builder, 0, pin_memory=context.device.type == "cuda")
        self.clock = PhaseClock(context.device)
        self.watch: Watch = self.clock.phase
        self.number = 0
        self.product: PlainProduct | None = None

    @abstractmethod
    def train(self, number: int, micro_batches: Sequence[PackedBatch]) -> None:
        """One step."""

    @abstractmethod
    def parameters(self) -> int:
        """Of the trained model."""

    def warm_up(self) -> Facts:
        """Train a little, so that what is made at the first time is there."""
        views, tokens, step_s, first_step_s = 0, 0, 0.0, 0.0
        for _ in range(WARM_UP_STEPS):
            began = self.now()
            micro_batches = self.one_step()
            step_s = self.now() - began
            first_step_s = first_step_s or step_s
            views += sum(batch.n_sequences for batch in micro_batches)
            tokens += sum(batch.n_tokens for batch in micro_batches)
        rows = tokens // (WARM_UP_STEPS * self.plan.accumulation)
        model = self.config.model
        dtype = product_dtype(self.precision) or DTYPES[self.precision]
        device = self.context.device
        self.product = PlainProduct(rows, model.hidden_size, model.intermediate_size, dtype, device)
        freeze_garbage_collector()
        return Facts(
            title=self.title,
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
            threads=torch.get_num_threads(),
            parameters=self.parameters(),
            product=str(self.product),
            batch=str(self.plan),
            pieces_a_view=tokens / views,
            step_s=step_s,
            first_step_s=first_step_s,
        )

    def measure(self, steps: int) -> Block:
        """So many steps, and the plain product before and after them."""
        assert self.product is not None
        product, before = self.product, (self.product.flops, Spent(self.product.seconds, self.product.cpu_s))
        self.context.barrier()
        product.measure()
        self.context.barrier()
        sentences = tokens = 0
        flops = 0.0
        began, cpu_began = self.now(), time.process_time()
        self.clock.start()
        trained = [self.one_step() for _ in range(steps)]
        phases = self.clock.stop()
        spent = Spent(self.now() - began, time.process_time() - cpu_began)
        self.context.barrier()
        product.measure()
        for batch in itertools.chain.from_iterable(trained):
            sentences += batch.n_sentences
            tokens += batch.n_tokens
            flops += step_flops(self.config, self.vocabulary, batch, self.config.moco.queue_keys)
        return Block(
            steps=steps,
            sentences=sentences,
            tokens=tokens,
            flops=flops,
            spent=spent,
            phases=phases,
            product_flops=product.flops - before[0],
            product=Spent(product.seconds - before[1].seconds, product.cpu_s - before[1].cpu_s),
        )

    def count(self) -> Counts:
        """One more step, counted, and the peak memory before it; launches only where nothing is compiled."""
        peak_gib = peak_memory_gib(self.context.device)
        if self.config.train.compile:
            with CollectiveCounter() as collectives:
                self.one_step()
            return Counts({}, collectives.by_kind(), peak_gib)
        launches = LaunchCounter(self.context.device)
        with self.watching(launches.phase), CollectiveCounter() as collectives, launches:
            self.one_step()
        return Counts(launches.launches_by_phase(), collectives.by_kind(), peak_gib)

    @contextlib.contextmanager
    def watching(self, watch: Watch) -> Iterator[None]:
        """Hand the borders of phases to `watch` in place of the clock."""
        before, self.watch = self.watch, watch
        try:
            yield
        finally:
            self.watch = before

    def one_step(self) -> list[PackedBatch]:
        """Train a step, its data included; returns what it was of."""
        with self.watch("data"):
            micro_batches = next(self.batches).micro_batches
        with self.watch(REST):
            self.train(self.number, micro_batches)
        self.number += 1
        return micro_batches


class Ours(Contender):
    """The step of `spe pretrain`, engine and momentum contrast included, with full queues."""

    def __init__(self, work: Work, context: RankContext) -> None:
        super().__init__(work, context)
        config = self.config
        loaded = load_encoder(None, config.model, self.vocabulary, config.train.seed, config.train.kernels)
        ds_config = complete(self.ds_config, config, self.plan, self.precision)
        ds_config, _ = choose_stage(ds_config, self.precision, context.ranks, keep=work.stage is not None)
        engine, moco = build_engine(config, loaded, ds_config, self.precision, context)
        if moco is not None:
            moco.start()
            fill_queues(moco, config)
        engine.train()
        self.engine, self.moco = engine, moco
        self.n_parameters = engine.n_parameters()
        self.title = f"{how_many(context.ranks, 'rank')}, ZeRO stage {engine.zero_stage}, {self.precision}"
        if config.train.compile:
            self.title += ", compiled"
        if config.moco.queue == "sharded":
            self.title += ", sharded queues"
        self.watched = WatchedStep(TrainingStep(engine, moco, config, context), lambda name: self.watch(name))

    def train(self, number: int, micro_batches: Sequence[PackedBatch]) -> None:
        self.watched.step(number, self.config.optimizer.learning_rate, micro_batches)

    def parameters(self) -> int:
        return self.n_parameters

    def checkpoints(self, folder: str, rounds: int, fragments_only: bool) -> list[Any]:
        """Times of checkpoints, see `measure_checkpoints`."""
        from spe_dist.benchmark.checkpoints import measure_checkpoints

        return measure_checkpoints(self, folder, rounds, fragments_only)


class Plain(Contender):
    """The same step in its plain form, on one rank; micro-batches are steps of their own."""

    def __init__(self, work: Work, context: RankContext) -> None:
        assert context.ranks == 1
        super().__init__(work, context)
        config = self.config
        bert = load_encoder(None, config.model, self.vocabulary, config.train.seed).bert_config
        dtype = product_dtype(self.precision) or DTYPES[self.precision]
        self.step = PlainStep(config, bert, context.device, None if dtype == torch.float32 else dtype)
        self.title = f"plain, {dtype}".replace("torch.", "")

    def train(self, number: int, micro_batches: Sequence[PackedBatch]) -> None:
        for batch in micro_batches:
            self.step(batch)

    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.step.model.parameters())


def open_store(work: Work, config: Config) -> Store:
    """The sentences.

    Raises:
        DataError: there are no such shards.
    """
    if work.shards is not None:
        return ShardStore.open(work.shards, "train")
    return MadeUpSentences(work.vocabulary, work.pieces, config.data.max_pieces)


def fill_queues(moco: MomentumContrast, config: Config) -> None:
    """Fill both queues with directions drawn at random, equal on all ranks."""
    generator = torch.Generator().manual_seed(config.train.seed)
    for queue in (moco.pair_queue, moco.context_queue):
        for first in range(0, queue.queue_keys, KEYS_DRAWN_AT_ONCE):
            count = min(KEYS_DRAWN_AT_ONCE, queue.queue_keys - first)
            keys_BC = F.normalize(torch.randn(count, queue.key_size, generator=generator), dim=1)
            ids_B = torch.arange(FIRST_QUEUED_ID + first, FIRST_QUEUED_ID + first + count)
            queue.enqueue(keys_BC.to(queue.device), ids_B.to(queue.device))


def _shipped(stage: int) -> dict[str, Any]:
    return load_deepspeed_config(f"zero{stage}")
