"""Kernel launches and waits of a GPU's pre-training step, counted without a GPU: the step itself, run on `meta`."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import BertConfig

from spe_dist.benchmark.compiled_launches import CompiledCounter
from spe_dist.benchmark.launches import LaunchCounter
from spe_dist.config.pretraining import Config
from spe_dist.data.batches.packed import PackedBatch
from spe_dist.distributed.context import RankContext
from spe_dist.distributed.deepspeed_config import DTYPES, Precision, product_dtype
from spe_dist.distributed.engine import TrainingEngine
from spe_dist.moco import KeyQueue, MomentumContrast, MomentumKeyEncoder, PlainWeights
from spe_dist.model.encoder import PackedBertEncoder
from spe_dist.model.start.build import build_key_encoder, build_pretraining_model
from spe_dist.pretraining.step import TrainingStep

META = torch.device("meta")


class CountedEngine:
    """The calls of a `TrainingEngine` that a step makes, without an optimizer."""

    zero_stage = 0

    def __init__(self, module: nn.Module, counter: LaunchCounter) -> None:
        self.module, self.counter = module, counter

    def __call__(self, *inputs: Any) -> Any:
        with self.counter.phase("query"):
            return self.module(*inputs)

    def backward(self, loss: Tensor) -> None:
        with self.counter.phase("backward"):
            loss.backward()

    def step(self) -> None:
        pass

    def was_step_applied(self) -> bool:
        return True

    def set_learning_rate(self, learning_rate: float) -> None:
        pass

    def set_learning_rates(self, learning_rates: Sequence[float]) -> None:
        pass


def count_step(
    config: Config, bert: BertConfig, micro_batches: Sequence[PackedBatch], precision: Precision
) -> tuple[LaunchCounter, nn.Module]:
    """(what one step of one rank launches and waits for, the model with its gradients), all on `meta`.

    Phases: "query" (forward), "keys", "losses" (and the sums for the metrics), "backward", "average", "enqueue". The
    engine's own work, reducing gradients and the optimizer, is not in it.

    Args:
        config: settings of the run; with `compile` on, what compiled parts launch is near a GPU's and not the same
            (`spe_dist.benchmark.compiled_launches`).
        bert: the encoder's sizes.
        micro_batches: those of the step, on the CPU.
        precision: that of the weights and of the encoder's products.
    """
    counter = CompiledCounter(META) if config.train.compile else LaunchCounter(META)
    with counter.compiling() if isinstance(counter, CompiledCounter) else contextlib.nullcontext():
        return counter, _run(config, bert, micro_batches, precision, counter)


def _run(
    config: Config,
    bert: BertConfig,
    micro_batches: Sequence[PackedBatch],
    precision: Precision,
    counter: LaunchCounter,
) -> nn.Module:
    dtype = DTYPES[precision]
    with META:
        model = build_pretraining_model(config, PackedBertEncoder(bert, config.train.kernels))
        model.spe.encoder.product_dtype = product_dtype(precision)
        key_module = build_key_encoder(model, config).to(dtype) if config.objectives.cspo else None
    context = RankContext(0, 1, 0, META, None)
    moco = None
    if key_module is not None:
        size = config.model.key_size
        queue_dtype = getattr(torch, config.moco.queue_dtype)
        queues = [KeyQueue(config.moco.queue_keys, size, queue_dtype, META) for _ in range(2)]
        source = PlainWeights(copy.deepcopy(model.spe))  # in float32, as an engine's masters are
        moco = MomentumContrast(MomentumKeyEncoder(key_module, source, context, query=model.spe), *queues)
        moco.start()
        key_module.keys = _counted(key_module.keys, counter, "keys")  # type: ignore[method-assign]
        moco.follow = _counted(moco.follow, counter, "average")  # type: ignore[method-assign]
        moco.enqueue = _counted(moco.enqueue, counter, "enqueue")  # type: ignore[method-assign]
    engine = CountedEngine(model.to(dtype).train(), counter)
    step = TrainingStep(cast(TrainingEngine, engine), moco, config, context)
    with counter, counter.phase("losses"):
        step(0, config.optimizer.learning_rate, micro_batches)
    return model


def _counted(function: Callable[..., Any], counter: LaunchCounter, phase: str) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        with counter.phase(phase):
            return function(*args)

    return call
