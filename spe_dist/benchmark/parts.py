"""Parts of a pre-training step beside their plain forms, in turn in one process, and what 16 bits cost contrast.

Legend of the shape suffixes:
    B queries, C width of queries and keys, K keys of a queue, P parameters
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from spe_dist.benchmark.plain_contrast import plain_contrast
from spe_dist.benchmark.pretraining.sentences import MadeUpSentences
from spe_dist.benchmark.pretraining.work import VIEW_PIECES, VOCABULARY, Work
from spe_dist.config.pretraining import Config
from spe_dist.data.batches.order import Order
from spe_dist.data.batches.packed import PackedBatch
from spe_dist.data.batches.stream import StepBuilder
from spe_dist.moco.average import KeyAverage
from spe_dist.model.loading import load_encoder
from spe_dist.model.products import ProductType
from spe_dist.model.spe import KeyEncoder, PretrainingModel
from spe_dist.model.start.build import build_key_encoder, build_pretraining_model
from spe_dist.pretraining.objectives import contrastive
from spe_dist.training.live_memory import peak_bytes
from spe_dist.training.terms import Term

ROUNDED: Sequence[ProductType] = ("tf32", "float16", "bfloat16")
RAW_SCALE = 27.7  # length of a LayerNorm's output of 768 numbers: what is compared where `normalize` is off


@dataclass(frozen=True)
class Comparison:
    """CPU seconds of two ways to do the same, medians, and the median of their ratios in each round."""

    ours_s: float
    plain_s: float
    ratio: float


@dataclass(frozen=True)
class RoundingError:
    """What products in fewer bits change, against float32."""

    loss: float  # nats a query
    gradient: float  # of the queries, as a share of its length


def in_turn(ours: Callable[[], object], plain: Callable[[], object], rounds: int) -> Comparison:
    """Both, round by round, after one of each that does not count."""
    spent: list[tuple[float, float]] = []
    for _ in range(rounds + 1):
        seconds = []
        for way in (ours, plain):
            began = time.process_time()
            way()
            seconds.append(time.process_time() - began)
        spent.append((seconds[0], seconds[1]))
    counted = spent[1:]
    ours_s, plain_s = (median(column) for column in zip(*counted, strict=True))
    return Comparison(ours_s, plain_s, median(plain / ours for ours, plain in counted))


class Contrast:
    """One direction of contrast against a full queue of random directions, loss and gradient of the queries."""

    def __init__(self, queries: int, keys: int, size: int, normalize: bool = True) -> None:
        generator = torch.Generator().manual_seed(0)
        scale = 1.0 if normalize else RAW_SCALE
        self.queries_BC, self.positive_keys_BC, self.queue_KC = (
            scale * F.normalize(torch.randn(count, size, generator=generator), dim=1)
            for count in (queries, queries, keys)
        )
        self.ids_K, self.ids_B = torch.arange(keys), torch.arange(keys, keys + queries)
        self.normalize = normalize

    def run(self, form: Callable[..., Term], *more: Any) -> tuple[Tensor, Tensor]:
        """Loss a query, and the gradient."""
        queries_BC = self.queries_BC.clone().requires_grad_()
        loss = form(
            queries_BC,
            self.positive_keys_BC,
            self.queue_KC,
            self.ids_K.shape[0],
            self.ids_B,
            self.ids_K,
            0.2,
            self.normalize,
            *more,
        ).loss_sum
        loss.backward()
        return loss.detach() / len(queries_BC), cast(Tensor, queries_BC.grad)

    def compare(self, rounds: int) -> Comparison:
        return in_turn(lambda: self.run(contrastive), lambda: self.run(plain_contrast), rounds)

    def rounding(self) -> dict[ProductType, RoundingError]:
        """By type of the products; on a CPU their factors are rounded and multiplied in float32."""
        exact, exact_BC = self.run(contrastive, "float32")
        found = {}
        for kind in ROUNDED:
            loss, gradient_BC = self.run(contrastive, kind)
            share = (gradient_BC - exact_BC).norm() / exact_BC.norm()
            found[kind] = RoundingError((loss - exact).abs().item(), share.item())
        return found


def compare_average(parameters: int, rounds: int) -> Comparison:
    """An update of the key encoder's average by the compiled kernel and by single operations."""
    source_P = torch.randn(parameters, generator=torch.Generator().manual_seed(0))
    compiled, single = KeyAverage(source_P, 0.999, compiled=True), KeyAverage(source_P, 0.999, compiled=False)
    return in_turn(lambda: compiled.update([source_P]), lambda: single.update([source_P]), rounds)


def compare_last_layer(size: str, sentences: int, rounds: int) -> tuple[Comparison, float]:
    """Query, keys and backward with the last layer for the tokens that are read and for all; the share that is read."""
    config = Work(size, {"global_batch_sentences": sentences}).config()
    encoder = load_encoder(None, config.model, VOCABULARY, config.train.seed).encoder
    model = build_pretraining_model(config, encoder).train()
    keys, batch = build_key_encoder(model, config), _batch(config)
    encoders: Sequence[Any] = (model.spe.encoder, keys.encoder)
    forwards = [encoder.forward for encoder in encoders]

    def run(choose: Callable[[Any], Any]) -> None:
        for one, forward in zip(encoders, forwards, strict=True):
            one.forward = choose(forward)
        _forward_and_backward(model, keys, batch)

    compared = in_turn(lambda: run(lambda forward: forward), lambda: run(_for_all_tokens), rounds)
    return compared, (batch.first_piece_W.shape[0] + batch.n_sequences) / batch.n_tokens


def compare_recomputed(size: str, sentences: int, rounds: int) -> tuple[Comparison, int, int]:
    """Query, keys and backward with activation checkpointing and without; the most bytes that tensors of each take."""
    config = Work(size, {"global_batch_sentences": sentences}).config()
    encoder = load_encoder(None, config.model, VOCABULARY, config.train.seed).encoder
    model = build_pretraining_model(config, encoder).train()
    keys, batch = build_key_encoder(model, config), _batch(config)

    def run(recompute: bool) -> None:
        encoder.encoder.recompute = recompute
        _forward_and_backward(model, keys, batch)

    peak, plain_peak = peak_bytes(lambda: run(True)), peak_bytes(lambda: run(False))
    return in_turn(lambda: run(True), lambda: run(False), rounds), peak, plain_peak


def compare_dropout(size: str, sentences: int, rounds: int) -> Comparison:
    """Query, keys and backward with dropout drawn from keys of the slots, and from torch's generator."""
    config = Work(size, {"global_batch_sentences": sentences}).config()
    encoder = load_encoder(None, config.model, VOCABULARY, config.train.seed).encoder
    model = build_pretraining_model(config, encoder).train()
    keys, batch = build_key_encoder(model, config), _batch(config)
    copies = config.corruption.permutations

    def by_slot() -> None:
        _forward_and_backward(model, keys, batch.with_dropout_keys(0, 0, 0, sentences, copies))

    return in_turn(by_slot, lambda: _forward_and_backward(model, keys, batch), rounds)


def _for_all_tokens(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def encode(*inputs: Any, kept_N: Tensor, **more: Any) -> Tensor:
        return forward(*inputs, **more).index_select(0, kept_N)

    return encode


def _forward_and_backward(model: PretrainingModel, keys: KeyEncoder, batch: PackedBatch) -> None:
    outputs = model(batch)
    keys.keys(batch)
    assert outputs.tbo_logits_MV is not None and outputs.spo_logits_PO is not None
    assert outputs.pair_queries_BC is not None and outputs.context_queries_BC is not None
    contrast = (outputs.pair_queries_BC * outputs.context_queries_BC).sum()
    (outputs.anchor + outputs.tbo_logits_MV.sum() + outputs.spo_logits_PO.sum() + contrast).backward()
    model.zero_grad()


def _batch(config: Config) -> PackedBatch:
    sentences = config.train.global_batch_sentences
    store = MadeUpSentences(VOCABULARY, VIEW_PIECES, config.data.max_pieces)
    order = Order(store.block_sentences, 0, 0, sentences)
    return StepBuilder(store, config.corruption, order, sentences, 0, 1).build(0).micro_batches[0]


def lines(compared: Mapping[str, Comparison]) -> list[list[str]]:
    """Rows of a table, the first its head."""
    head = ["", "CPU s", "plain", "ratio"]
    return [head, *([name, f"{c.ours_s:.4f}", f"{c.plain_s:.4f}", f"{c.ratio:.2f}x"] for name, c in compared.items())]
