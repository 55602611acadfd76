"""What is measured: sizes by name, the settings of a run, and the figures of one measurement. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from spe_dist.config.loading import resolve
from spe_dist.config.pretraining import Config
from spe_dist.config.shared import ENCODER_SIZES

SIZES: Mapping[str, tuple[int, int, int, int]] = {  # of encoders by name, in the order of `ENCODER_SIZES`
    "2x128": (128, 2, 2, 512),
    "4x256": (256, 4, 4, 1024),
    "6x384": (384, 6, 12, 1536),
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
}
VOCABULARY = 28_996  # pieces of bert-base-cased
VIEW_PIECES = 28.0  # of a view with a [MASK] for each hidden piece, [CLS] and [SEP] included


@dataclass(frozen=True)
class Work:
    """One run's settings and sentences.

    Attributes:
        size: one of `SIZES`.
        given: further settings of pre-training by name.
        stage: of ZeRO; None takes what `spe pretrain` takes by itself.
        shards: folder or URL of real sentences; None makes some up.
        vocabulary, pieces: of made-up sentences, pieces in the mean with [CLS] and [SEP].
    """

    size: str
    given: Mapping[str, Any] = field(default_factory=dict)
    stage: int | None = None
    shards: str | None = None
    vocabulary: int = VOCABULARY
    pieces: float = VIEW_PIECES

    def config(self) -> Config:
        """The settings of the run.

        Raises:
            ConfigError: one is unknown or out of range.
        """
        sizes = dict(zip(ENCODER_SIZES, SIZES[self.size], strict=True))
        config = resolve([sizes, {"loader_workers": 0}, self.given])
        config.validate()
        return config


@dataclass(frozen=True)
class Spent:
    """Time of a part of a step."""

    seconds: float = 0.0
    cpu_s: float = 0.0  # of all threads of the process

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.seconds + other.seconds, self.cpu_s + other.cpu_s)


@dataclass(frozen=True)
class Block:
    """Some steps in a row on one rank or, added up, on all of them, and a plain product just before and after."""

    steps: int
    sentences: int
    tokens: int
    flops: float  # that the model needs for the real tokens
    spent: Spent
    phases: Mapping[str, Spent]
    product_flops: float
    product: Spent

    @property
    def per_second(self) -> float:
        """Sentences a second."""
        return self.sentences / self.spent.seconds

    @property
    def per_cpu_s(self) -> float:
        """Sentences a CPU second of all ranks."""
        return self.sentences / self.spent.cpu_s

    @property
    def share(self) -> float:
        """Model FLOP a second as a share of the plain product's."""
        return self.flops / self.spent.seconds / (self.product_flops / self.product.seconds)

    @property
    def cpu_share(self) -> float:
        """The same by CPU seconds, which what else the machine does disturbs less."""
        return self.flops / self.spent.cpu_s / (self.product_flops / self.product.cpu_s)


def join_ranks(blocks: list[Block]) -> Block:
    """The same steps on all ranks as one: sums of work and CPU time, the slowest rank's time, its mean by phase."""
    ranks = len(blocks)

    def together(spent: Iterable[Spent]) -> Spent:
        parts = list(spent)
        return Spent(max(part.seconds for part in parts), sum(part.cpu_s for part in parts))

    phases = {
        name: Spent(
            sum(block.phases[name].seconds for block in blocks) / ranks,
            sum(block.phases[name].cpu_s for block in blocks),
        )
        for name in blocks[0].phases
    }
    return Block(
        steps=blocks[0].steps,
        sentences=sum(block.sentences for block in blocks),
        tokens=sum(block.tokens for block in blocks),
        flops=sum(block.flops for block in blocks),
        spent=together(block.spent for block in blocks),
        phases=phases,
        product_flops=sum(block.product_flops for block in blocks),
        product=together(block.product for block in blocks),
    )


@dataclass(frozen=True)
class Facts:
    """What one rank says of itself before it measures."""

    title: str
    device: str
    threads: int
    parameters: int
    product: str  # type and shape of the plain product
    batch: str
    pieces_a_view: float
    step_s: float  # of the last step of the warm-up
    first_step_s: float  # with what is made or compiled in it


@dataclass(frozen=True)
class Counts:
    """What one rank counted in a step after the measurements."""

    launches: Mapping[str, int]  # by phase; empty where they are not counted
    collectives: Mapping[str, tuple[int, int]]  # by kind: calls and bytes handed to them
    peak_memory_gib: float


@dataclass(frozen=True)
class Spread:
    """The median of some figures, with the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        found = sorted(values)
        return cls(median(found), found[0], found[-1])
