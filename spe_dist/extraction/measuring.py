"""How fast training and prediction are on this machine, and against what its matrix products reach.

The rate of a plain matrix product is measured again after every few steps, between them, so that what else the machine
does weighs on both. Rates count matrix products alone (torch's own count); everything else is overhead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from spe_dist.extraction.batch import ExtractionBatch, collate
from spe_dist.extraction.config import DataConfig, FinetuneConfig, ModelConfig
from spe_dist.extraction.corpus import Corpus, Labels
from spe_dist.extraction.examples import Example, make_examples
from spe_dist.extraction.formats import read_corpus
from spe_dist.extraction.model import JointModel
from spe_dist.extraction.prediction import predict_sentences
from spe_dist.extraction.start import open_start
from spe_dist.model.prepacked import prepack

PRODUCT_S = 0.2  # time of each measurement of the plain product
STEPS_BETWEEN = 4  # steps between two of them
WARM_UP_STEPS = 2
HEAD_RATE, ENCODER_RATE = 1e-3, 5e-5  # enough for the measured prediction to find about as much as there is


@dataclass
class Timing:
    """Sums over what was measured."""

    sentences: int = 0
    pieces: int = 0
    seconds: float = 0.0
    encoder_s: float = 0.0
    heads_s: float = 0.0
    flops: float = 0.0  # of matrix products
    product_rate: float = 0.0  # FLOP a second of a plain matrix product, meanwhile
    entities: int = 0
    relations: int = 0

    @property
    def product_share(self) -> float:
        """FLOP a second of all that was measured, by that of a plain product."""
        return self.flops / self.seconds / self.product_rate


@dataclass(frozen=True)
class Setup:
    """What is measured."""

    corpus: Corpus
    model: JointModel
    tokenizer: Any
    max_pieces: int
    examples: list[Example]

    @classmethod
    def open(cls, train: str, start: str | None, tokenizer: str | None, device: torch.device | str) -> Setup:
        config = FinetuneConfig(DataConfig(train=train), ModelConfig(start=start, tokenizer=tokenizer))
        opened = open_start(config)
        corpus = read_corpus(Path(train))
        labels = Labels.of(corpus.sentences)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = JointModel(opened.spe, labels, config.model.relation_size, config.model.dropout)
        examples = make_examples(corpus.sentences, opened.tokenizer, labels, opened.positions)
        return cls(corpus, model.to(device), opened.tokenizer, opened.positions, examples)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


class PlainProduct:
    """FLOP a second of the largest product of an encoder layer, for so many rows, from many short measurements."""

    def __init__(self, setup: Setup, rows: int, bfloat16: bool = False) -> None:
        bert = setup.model.spe.encoder.config
        dtype = torch.bfloat16 if bfloat16 else torch.float32
        self.x = torch.randn(rows, bert.hidden_size, device=setup.device, dtype=dtype)
        self.weight = torch.randn(bert.intermediate_size, bert.hidden_size, device=setup.device, dtype=dtype)
        self.now = setup.now
        self.repeats, self.seconds = 0, 0.0

    def measure(self) -> None:
        F.linear(self.x, self.weight)
        began = self.now()
        while (seconds := self.now() - began) < PRODUCT_S:
            F.linear(self.x, self.weight)
            self.repeats += 1
        self.seconds += seconds

    @property
    def rate(self) -> float:
        return 2.0 * self.x.shape[0] * self.weight.numel() * self.repeats / self.seconds


class EncoderClock:
    """Parts time between the encoder and all else, forwards and backwards, at its output and that one's gradient."""

    def __init__(self, encoder: nn.Module, now: Callable[[], float]) -> None:
        self.now, self.seconds = now, 0.0
        self.entered = 0.0
        self.handles = [encoder.register_forward_pre_hook(self._enter), encoder.register_forward_hook(self._leave)]

    def _enter(self, *_: Any) -> None:
        self.entered = self.now()

    def _leave(self, module: nn.Module, inputs: Any, states: Tensor) -> None:
        self.seconds += self.now() - self.entered
        if states.requires_grad:
            states.register_hook(self._enter)

    def backward_ended(self) -> None:
        self.seconds += self.now() - self.entered

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()


def measure_training(setup: Setup, batch_sentences: int, steps: int, gold: float, mixed: bool) -> Timing:
    """Steps with AdamW and clipping; a share `gold` of the sentences takes gold entities. `mixed`: the precision."""
    model, timing = setup.model.train(), Timing()
    optimizer = torch.optim.AdamW(_groups(model), fused=True)
    generator = torch.Generator().manual_seed(0)
    batches = _endless(setup.examples, batch_sentences, generator)
    mean_pieces = sum(example.n_pieces for example in setup.examples) / len(setup.examples)
    counted = next(batches).to(setup.device)
    with FlopCounterMode(display=False) as counter:  # in float32, so without tokens that only fill up
        _loss(model, counted, torch.ones(counted.n_examples, dtype=torch.bool, device=setup.device)).backward()
    flops_of_piece = counter.get_total_flops() / counted.n_tokens
    optimizer.zero_grad()
    model.spe.encoder.product_dtype = torch.bfloat16 if mixed else None
    product = PlainProduct(setup, round(batch_sentences * mean_pieces), mixed)
    clock = EncoderClock(model.spe.encoder, setup.now)
    for number in range(-WARM_UP_STEPS, steps):
        if number % STEPS_BETWEEN == 0:
            product.measure()
        if number == 0:
            clock.seconds = 0.0
        began = setup.now()
        batch = next(batches).to(setup.device)
        gold_entities_B = (torch.rand(batch.n_examples, generator=generator) < gold).to(setup.device)
        _loss(model, batch, gold_entities_B).backward()
        clock.backward_ended()
        trained = setup.now()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if number >= 0:
            timing.seconds += setup.now() - began
            timing.heads_s += trained - began
            timing.sentences += batch.n_examples
            timing.pieces += batch.n_tokens
            timing.flops += flops_of_piece * batch.n_tokens
    clock.close()
    model.spe.encoder.product_dtype = None
    timing.encoder_s = clock.seconds
    timing.heads_s -= clock.seconds
    timing.product_rate = product.rate
    return timing


def _groups(model: JointModel) -> list[dict[str, Any]]:
    encoder = list(model.spe.encoder.parameters())
    theirs = {id(parameter) for parameter in encoder}
    heads = [parameter for parameter in model.parameters() if id(parameter) not in theirs]
    return [{"params": encoder, "lr": ENCODER_RATE}, {"params": heads, "lr": HEAD_RATE}]


def _loss(model: JointModel, batch: ExtractionBatch, gold_entities_B: Tensor) -> Tensor:
    outputs = model(batch, gold_entities_B)
    return outputs.anchor + torch.stack([t.loss_sum / max(t.count, 1) for t in outputs.terms.values()]).sum()


def _endless(
    examples: Sequence[Example], batch_sentences: int, generator: torch.Generator
) -> Iterator[ExtractionBatch]:
    while True:
        order = torch.randperm(len(examples), generator=generator).tolist()
        for first in range(0, len(order), batch_sentences):
            yield collate([examples[i] for i in order[first : first + batch_sentences]])


def measure_prediction(setup: Setup, batch_pieces: int, bfloat16: bool, seconds: float) -> Timing:
    """Reads, predicts and decodes the corpus's file, again and again for so long, as an `Extractor` does."""
    model, timing = setup.model, Timing()
    options: dict[str, Any] = {"max_pieces": setup.max_pieces, "batch_pieces": batch_pieces}
    some = setup.corpus.sentences[:64]
    with FlopCounterMode(display=False) as counter:
        list(predict_sentences(model, setup.tokenizer, model.labels, some, **options))
    flops_of_piece = counter.get_total_flops() / sum(example.n_pieces for example in setup.examples[: len(some)])
    if bfloat16:
        options["bfloat16"] = True
        prepack(model.spe.encoder.to(torch.bfloat16))
    product = PlainProduct(setup, batch_pieces, bfloat16)
    clock = EncoderClock(model.spe.encoder, setup.now)
    while timing.seconds < seconds:
        product.measure()
        began = setup.now()
        corpus = read_corpus(setup.corpus.source)
        for found in predict_sentences(model, setup.tokenizer, model.labels, corpus.sentences, **options):
            timing.sentences += 1
            timing.entities += len(found.entities)
            timing.relations += len(found.relations)
        timing.seconds += setup.now() - began
        timing.pieces += sum(example.n_pieces for example in setup.examples)
    clock.close()
    timing.flops = flops_of_piece * timing.pieces
    timing.encoder_s, timing.heads_s = clock.seconds, timing.seconds - clock.seconds
    timing.product_rate = product.rate
    return timing
