"""Settings that pre-training and fine-tuning have in common, and the checks of both.

Where one of them has another default or another help text, its own config class says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol

from spe_dist.errors import ConfigError
from spe_dist.utils.wording import short

LARGEST_WHOLE = 2**62  # of a setting: what a checkpoint's state may hold, and torch takes as a seed
LONGEST_S = 1e8  # three years: longer time-outs do not fit into what torch.distributed counts with


@dataclass(frozen=True)
class Bounds:
    """The range of a number: from `low` to `high`, each included unless it is open."""

    low: float = 0.0
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def contain(self, value: float) -> bool:
        above = value > self.low or (value == self.low and not self.low_open)
        return above and (value < self.high or (value == self.high and not self.high_open))

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"{'above' if self.low_open else 'at least'} {self.low:g}"
        return f"in {'(' if self.low_open else '['}{self.low:g}, {self.high:g}{')' if self.high_open else ']'}"


def setting(
    default: Any,
    help: str,
    *,
    low: float = 0.0,
    above: float | None = None,
    high: float = math.inf,
    below: float | None = None,
    why: str = "",
    common: bool = False,
) -> Any:
    """A dataclass field with the text that `--help` shows, and the range of a number.

    Args:
        default: its value where nobody sets it.
        help: one phrase; the default is added to it.
        low: least value of a number; `above` instead: it must be larger than that.
        high: largest value of a number; `below` instead: it must be smaller than that.
        why: the reason for the range, where its error should give one.
        common: shown by `--help`; the others by `--help-all`.
    """
    bounds = Bounds(
        low if above is None else above, high if below is None else below, above is not None, below is not None
    )
    return field(default=default, metadata={"help": help, "bounds": bounds, "why": why, "common": common})


def check_batch_divides(name: str, batch_sentences: int, ranks: int, micro_batch_sentences: int = 1) -> None:
    """Check that every rank gets as many sentences of a batch as any other, in whole micro-batches.

    Raises:
        ConfigError: it does not come out even; `name` is the setting that gives the batch.
    """
    if micro_batch_sentences < 1:
        raise ConfigError(f"micro_batch_sentences={micro_batch_sentences} is not positive; choose at least 1")
    unit = ranks * micro_batch_sentences
    if batch_sentences > 0 and batch_sentences % unit == 0:
        return
    below = batch_sentences // unit * unit
    nearest = f"{below} or {below + unit}" if below > 0 else f"{unit}"
    parts = f"{ranks} ranks" + (f" x micro-batches of {micro_batch_sentences}" if micro_batch_sentences > 1 else "")
    remedy = f"choose a multiple of {unit}, such as {nearest}"
    if batch_sentences > 0 and batch_sentences % ranks == 0:
        remedy += f", or a divisor of {batch_sentences // ranks} as micro_batch_sentences"
    raise ConfigError(f"{name}={batch_sentences} is not divisible by {parts}; {remedy}")


# Settings that an encoder loaded by name brings itself.
ENCODER_SIZES = ("hidden_size", "layers", "attention_heads", "intermediate_size")


@dataclass(frozen=True)
class NetworkConfig:
    """Encoder, span encoder and span pair encoder, in pre-training and fine-tuning alike."""

    hidden_size: int = setting(768, "width of a randomly started encoder", low=1)
    layers: int = setting(12, "layers of a randomly started encoder", low=1)
    attention_heads: int = setting(12, "attention heads of a randomly started encoder", low=1)
    intermediate_size: int = setting(3072, "feed-forward width of a randomly started encoder", low=1)
    dropout: float = setting(0.1, "dropout of encoder and heads", below=1)
    cnn_kernels: tuple[int, ...] = setting((2, 3, 4), "kernel widths of the span encoder, in words")
    cnn_channels: int = setting(100, "filters for each kernel width", low=1)
    span_size: int = setting(300, "width of a span vector", low=1)
    attention_size: int = setting(500, "width of the span pair encoder's attention", low=1)
    position_size: int = setting(100, "width of a relative position embedding in the span pair encoder", low=1)
    pair_activation: Literal["tanh", "gelu"] = setting("tanh", "activation of the span pair attention (paper: tanh)")
    cls_source: Literal["state", "pooler"] = setting("state", "what the span pair attention takes as h_cls")


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, clipping and the schedule."""

    learning_rate: float = setting(1e-4, "peak learning rate", above=0, common=True)
    warmup_steps: int = setting(0, "applied steps of linear warm-up; 0: warmup_fraction of the run", common=True)
    warmup_fraction: float = setting(
        0.1, "share of the run that warms up, where warmup_steps is 0", high=1, common=True
    )
    adam_beta1: float = setting(0.9, "AdamW beta 1", below=1)
    adam_beta2: float = setting(0.999, "AdamW beta 2", below=1)
    adam_eps: float = setting(1e-6, "AdamW epsilon", above=0)
    weight_decay: float = setting(0.01, "weight decay; none on biases and LayerNorm")
    max_grad_norm: float = setting(1.0, "gradient clipping by global norm; 0: off")


@dataclass(frozen=True)
class RunConfig:
    """The run itself; each kind of run says more precisely what some of these are to it."""

    output: str = setting("runs/run", "folder of the run", common=True)
    precision: Literal["auto", "float16", "bfloat16", "mixed", "float32"] = setting(
        "auto",
        "auto: float16 on a GPU, bfloat16 on a CPU that has it, else float32; mixed: float32 but for the encoder's "
        "matrix products, which are in bfloat16",
        common=True,
    )
    activation_checkpointing: bool = setting(
        False,
        "keep only the input of each encoder layer for the backward pass, which runs the layer again: less memory, "
        "about a third more time",
    )
    keep_zero_stage: bool = setting(
        False, "keep the DeepSpeed config's stage 1 or 2 where one rank with float32 weights would train at stage 0"
    )
    seed: int = setting(0, "seed of all draws", common=True)
    dropout_seed: Literal["auto", "slot", "rank"] = setting(
        "auto",
        "what seeds dropout beside seed and step: 'slot': a sentence's place in the batch, so that masks are the same "
        "on any number of ranks and micro-batches; 'rank': the rank; auto: slot on a CPU, rank on a GPU, where slot "
        "takes more kernels",
    )
    checkpoint_every_minutes: float = setting(0.0, "minutes between checkpoints; 0: none by time")
    keep_checkpoints: int = setting(3, "newest checkpoints that are kept", low=1)
    background_saving: bool = setting(
        True, "write checkpoints in the background, from a copy in main memory; off: training waits"
    )
    resume: str = setting(
        "never",
        "'auto': newest valid checkpoint of the output folder, else start; 'never'; or a checkpoint's folder",
        common=True,
    )
    log_every_steps: int = setting(10, "steps between rows of metrics.jsonl and TensorBoard", low=1)
    max_skipped_steps: int = setting(20, "skipped steps in a row (overflow) that stop the run", low=1)
    skip_sentences: str | None = setting(
        None,
        "file of ids of sentences, one a line, that are left out of training; the next sentences take their places. "
        "none: as in the checkpoint",
    )
    rollback_on_spike: float = setting(
        0.0,
        "where a loss is so many times the median of the last 64 steps, or not finite, go back to the last checkpoint "
        "and leave out the steps that caused it; 0: off",
    )
    max_rollbacks: int = setting(3, "roll-backs in one start of a run; after that the run ends")
    start_timeout_s: float = setting(
        45.0,
        "seconds that ranks wait for one of which no process is seen on their machine, where no launcher would end "
        "them (without one, under srun, and under deepspeed on several machines); ranks of other machines have four "
        "times as long",
        above=0,
    )
    timeout_s: float = setting(
        1_800.0,
        "seconds that a rank waits for others before it names the missing ones and ends the run",
        low=1,
        high=LONGEST_S,
    )
    slow_rank_factor: float = setting(
        1.5,
        "a rank that takes so many times as long as the median rank for its own work, over ten steps, is named in "
        "a warning; 0: never",
    )
    kernels: Literal["auto", "torch", "apex"] = setting(
        "auto", "fused kernels: the best that is present, or one source"
    )


class EngineSettings(Protocol):
    """What the engine, its optimizer and its schedule take from the config of any kind of run."""

    @property
    def optimizer(self) -> OptimizerConfig: ...

    @property
    def train(self) -> RunConfig: ...


def check_bounds(config: Any) -> None:
    """Check the numbers of all sections against the bounds that their settings declare.

    Raises:
        ConfigError: for the first one outside, with its value and its range.
    """
    for section in vars(config).values():
        for declared in fields(section):
            value = getattr(section, declared.name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"{declared.name}={value}: must be a finite number")
            bounds, why = declared.metadata["bounds"], declared.metadata["why"]
            if not bounds.contain(value):
                reason = f" ({why})" if why else ""
                raise ConfigError(f"{declared.name}={short(value)}: must be {bounds}{reason}")
            if isinstance(value, int) and value > LARGEST_WHOLE:
                raise ConfigError(f"{declared.name}={short(value)}: must be at most {LARGEST_WHOLE:,}")


def check_rollback(factor: float) -> None:
    """A loss that is as usual is no spike. Raises ConfigError."""
    if 0 < factor <= 1:
        raise ConfigError(f"rollback_on_spike={factor:g}: must be above 1, such as 2, or 0 to switch it off")


def check_network(network: NetworkConfig, start: str | None) -> None:
    """Sizes that fit each other; those of the encoder count where it does not `start` from another."""
    if start is None and network.hidden_size % network.attention_heads:
        raise ConfigError(
            f"hidden_size={network.hidden_size} is not divisible by attention_heads={network.attention_heads}"
        )
    if not network.cnn_kernels or min(network.cnn_kernels) < 1:
        raise ConfigError(f"cnn_kernels={network.cnn_kernels}: give at least one width, each 1 or more")
