"""How fast training and prediction are on this machine, and against what its matrix products reach.

Steps are those of fine-tuning by one rank, its engine included. The rate of a plain matrix product is measured again
after every few steps, between them, so that what else the machine does weighs on both. Rates count matrix products
alone (torch's own count); everything else is overhead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from spe_dist.benchmark.product import PlainProduct, device_clock
from spe_dist.config.finetuning import DataConfig, FinetuneConfig, ModelConfig, OptimizerConfig
from spe_dist.distributed.context import RankContext
from spe_dist.distributed.deepspeed_config import BatchPlan, Precision, complete, product_dtype
from spe_dist.distributed.engine import TrainingEngine
from spe_dist.extraction.corpora.corpus import Corpus, Labels
from spe_dist.extraction.formats import read_corpus
from spe_dist.extraction.joint.batch import ExtractionBatch, collate
from spe_dist.extraction.joint.examples import Example, ExampleMaker, make_examples
from spe_dist.extraction.joint.model import JointModel
from spe_dist.extraction.predicting.stream import StreamSettings, predict_sentences
from spe_dist.finetuning.build import build_engine, build_model
from spe_dist.finetuning.start import open_start
from spe_dist.finetuning.step import WEIGHTS, FinetuneStep
from spe_dist.model.prepacked import prepack
from spe_dist.training.terms import total
from spe_dist.utils.memory import freeze_garbage_collector

STEPS_BETWEEN = 4  # steps between two of them
WARM_UP_STEPS = 2
# With these the measured prediction finds about as much as there is.
RATES = OptimizerConfig(learning_rate=5e-5, head_learning_rate=1e-3, layer_decay=1.0)


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

    config: FinetuneConfig
    context: RankContext  # of one rank
    corpus: Corpus
    model: JointModel
    tokenizer: Any
    max_pieces: int
    examples: list[Example]

    @classmethod
    def open(cls, train: str, start: str | None, tokenizer: str | None, context: RankContext) -> Setup:
        config = FinetuneConfig(DataConfig(train=train), ModelConfig(start=start, tokenizer=tokenizer), RATES)
        opened = open_start(config)
        corpus = read_corpus(Path(train))
        labels = Labels.of(corpus.sentences)
        model = build_model(config, labels, opened).to(context.device)
        examples = make_examples(corpus.sentences, opened.tokenizer, labels, opened.positions)
        freeze_garbage_collector()
        return cls(config, context, corpus, model, opened.tokenizer, opened.positions, examples)

    @property
    def device(self) -> torch.device:
        return self.context.device

    def maker(self) -> ExampleMaker:
        """One that has seen no word yet."""
        return ExampleMaker(self.tokenizer, None, self.max_pieces)

    @property
    def now(self) -> Callable[[], float]:
        """A clock that waits for the device."""
        return device_clock(self.device)


def plain_product(setup: Setup, rows: int, bfloat16: bool) -> PlainProduct:
    """That of an encoder layer of the model, for so many pieces."""
    bert = setup.model.spe.encoder.config
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    return PlainProduct(rows, bert.hidden_size, bert.intermediate_size, dtype, setup.device)


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


class _ClockedEngine:
    """An engine whose updates are timed apart."""

    def __init__(self, engine: TrainingEngine, encoder_clock: EncoderClock, now: Callable[[], float]) -> None:
        self.engine, self.encoder_clock, self.now, self.update_s = engine, encoder_clock, now, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def __call__(self, *inputs: Any) -> Any:
        return self.engine(*inputs)

    def step(self) -> None:
        self.encoder_clock.backward_ended()
        began = self.now()
        self.engine.step()
        self.update_s += self.now() - began


def measure_training(setup: Setup, batch_sentences: int, steps: int, gold: float, mixed: bool) -> Timing:
    """Steps of fine-tuning; a share `gold` of the sentences takes gold entities. `mixed`: the precision."""
    timing, precision = Timing(), _precision(mixed)
    generator = torch.Generator().manual_seed(0)
    batches = _endless(setup.examples, batch_sentences, generator)
    flops_of_piece = _training_flops(setup, next(batches))
    product = plain_product(setup, round(batch_sentences * _mean_pieces(setup)), mixed)
    plan = BatchPlan(batch_sentences, 1, 1, batch_sentences, "batch_sentences")
    ds_config = complete({"zero_optimization": {"stage": 0}}, setup.config, plan, precision)
    engine, rates = build_engine(setup.config, setup.model, ds_config, precision, setup.context)
    encoder = setup.model.spe.encoder
    encoder.product_dtype = product_dtype(precision)
    clock = EncoderClock(encoder, setup.now)
    clocked = _ClockedEngine(engine, clock, setup.now)
    step = FinetuneStep(cast(TrainingEngine, clocked), setup.context, seed=0)
    engine.train()
    for number in range(-WARM_UP_STEPS, steps):
        if number % STEPS_BETWEEN == 0:
            product.measure()
        if number == 0:
            clock.seconds = clocked.update_s = 0.0
        began = setup.now()
        batch = next(batches)
        gold_entities_B = torch.rand(batch.n_examples, generator=generator) < gold
        step(number + WARM_UP_STEPS, rates.rates(1.0), batch, gold_entities_B)
        if number >= 0:
            timing.seconds += setup.now() - began
            timing.sentences += batch.n_examples
            timing.pieces += batch.n_tokens
            timing.flops += flops_of_piece * batch.n_tokens
    clock.close()
    encoder.product_dtype = None
    timing.encoder_s = clock.seconds
    timing.heads_s = timing.seconds - clock.seconds - clocked.update_s
    timing.product_rate = product.rate
    return timing


def _precision(mixed: bool) -> Precision:
    return "mixed" if mixed else "float32"


def _training_flops(setup: Setup, batch: ExtractionBatch) -> float:
    """FLOP a piece of a forward and a backward pass; in float32, so without tokens that only fill up."""
    batch = batch.to(setup.device)
    with FlopCounterMode(display=False) as counter:
        outputs = setup.model(batch, torch.ones(batch.n_examples, dtype=torch.bool))
        counts = {name: term.count for name, term in outputs.terms.items()}
        (outputs.anchor + total(outputs.terms, WEIGHTS, counts, ranks=1, accumulation=1)).backward()
    setup.model.zero_grad()
    return counter.get_total_flops() / batch.n_tokens


def _mean_pieces(setup: Setup) -> float:
    return sum(example.n_pieces for example in setup.examples) / len(setup.examples)


def _endless(
    examples: Sequence[Example], batch_sentences: int, generator: torch.Generator
) -> Iterator[ExtractionBatch]:
    while True:
        order = torch.randperm(len(examples), generator=generator).tolist()
        for first in range(0, len(order), batch_sentences):
            yield collate([examples[i] for i in order[first : first + batch_sentences]])


def measure_prediction(setup: Setup, batch_pieces: int, bfloat16: bool, seconds: float) -> Timing:
    """Reads, predicts and decodes the corpus's file, again and again for so long, as a new `Extractor` does."""
    model, timing = setup.model, Timing()
    some = setup.corpus.sentences[:64]
    with FlopCounterMode(display=False) as counter:
        list(predict_sentences(model, setup.maker(), some, StreamSettings(batch_pieces)))
    flops_of_piece = counter.get_total_flops() / sum(example.n_pieces for example in setup.examples[: len(some)])
    if bfloat16:
        prepack(model.spe.encoder.to(torch.bfloat16))
    product = plain_product(setup, batch_pieces, bfloat16)
    clock, settings = EncoderClock(model.spe.encoder, setup.now), StreamSettings(batch_pieces, bfloat16=bfloat16)
    while timing.seconds < seconds:
        product.measure()
        began = setup.now()
        corpus = read_corpus(setup.corpus.source)
        for found in predict_sentences(model, setup.maker(), corpus.sentences, settings):
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
