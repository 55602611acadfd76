"""Every setting of a pre-training run: frozen dataclasses, presets, checks.

`config_loading.py` fills them from presets, YAML files and the command line. Leaf names are unique over all
sections, so that the command line needs no dots (`--learning_rate 1e-4`).

This module knows nothing of torch, so that `--help` answers at once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from spe_dist.errors import ConfigError


def setting(default: Any, help: str) -> Any:
    """A dataclass field with the text that `--help` shows."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class DataConfig:
    """Where sentences come from and in what order."""

    shards: str | None = setting(None, "folder or URL of shards with a manifest.json; none: the embedded demo corpus")
    cache_dir: str | None = setting(None, "where shards of a URL are kept; none: the user's cache folder")
    loader_workers: int = setting(1, "loader processes a rank; 0 loads in the training process")
    prefetch_steps: int = setting(4, "steps that the loader prepares ahead of training")
    streams: int = setting(0, "equal streams that an epoch is cut into, a divisor of the global batch; 0: chosen")
    max_pieces: int = setting(128, "longest sequence in pieces, [CLS] and [SEP] included")


@dataclass(frozen=True)
class CorruptionConfig:
    """How a sentence becomes two views with targets (METHOD, one pre-training example)."""

    span_width_p: float = setting(0.2, "geometric distribution of span widths: probability of stopping at each word")
    max_span_words: int = setting(10, "widest sampled span in words")
    view_masks: Literal["each", "one"] = setting(
        "one", "'each': a [MASK] per hidden piece, as in the paper; 'one': a single [MASK] per hidden span"
    )
    permuted_spans: int = setting(2, "spans a sentence whose words may be shuffled, at most")
    min_permuted_words: int = setting(3, "narrowest span that may be shuffled, in words")
    permutations: int = setting(
        1, "n_p of the paper: 1 draws one order; n_p > 1 takes the true order and n_p - 1 others"
    )
    tbo_fraction: float = setting(0.15, "share of a sentence's pieces that become token boundary targets")
    max_tbo_pieces: int = setting(20, "token boundary targets of a sentence, at most, in pieces")


@dataclass(frozen=True)
class ModelConfig:
    """Encoder, span encoder, span pair encoder and heads."""

    encoder: str | None = setting(
        None, "name or folder of a BERT-family checkpoint to start from; none: random weights"
    )
    tokenizer: str | None = setting(None, "name, folder or vocab.txt; none: the encoder's, else the shards' own")
    hidden_size: int = setting(768, "width of a randomly started encoder")
    layers: int = setting(12, "layers of a randomly started encoder")
    attention_heads: int = setting(12, "attention heads of a randomly started encoder")
    intermediate_size: int = setting(3072, "feed-forward width of a randomly started encoder")
    dropout: float = setting(0.1, "dropout of encoder and heads")
    cnn_kernels: tuple[int, ...] = setting((2, 3, 4), "kernel widths of the span encoder, in words")
    cnn_channels: int = setting(100, "filters for each kernel width")
    span_size: int = setting(300, "width of a span vector")
    attention_size: int = setting(500, "width of the span pair encoder's attention")
    position_size: int = setting(100, "width of a relative position embedding in the span pair encoder")
    pair_activation: Literal["tanh", "gelu"] = setting("tanh", "activation of the span pair attention (paper: tanh)")
    cls_source: Literal["state", "pooler"] = setting("state", "what the span pair attention takes as h_cls")
    tbo_offset_size: int = setting(200, "width of the embedding of a piece's offset inside its word")
    tbo_offset_rows: int = setting(150, "rows of that embedding; larger offsets are clamped")
    contrastive_size: int = setting(768, "width of queries and keys")
    contrastive_head: bool = setting(True, "off: span pair vectors are compared directly (row 'w/o MLP head')")


@dataclass(frozen=True)
class ObjectiveConfig:
    """Which objectives are computed, and their weights in the total loss."""

    tbo: bool = setting(True, "token boundary objective")
    spo: bool = setting(True, "span permutation objective")
    cspo: bool = setting(True, "contrastive span pair objective")
    tbo_weight: float = setting(0.5, "weight of the token boundary loss")
    spo_weight: float = setting(1.0, "weight of the span permutation loss")
    cspo_weight: float = setting(0.3, "weight of the contrastive loss")


@dataclass(frozen=True)
class MocoConfig:
    """Key encoder and queues."""

    momentum: float = setting(0.999, "m in theta_k = m theta_k + (1 - m) theta_q")
    queue_keys: int = setting(65_536, "keys in each of the two queues")
    temperature: float = setting(0.2, "divisor of the similarities")
    normalize: bool = setting(True, "scale queries and keys to unit length (MoCo); off: raw products (paper)")
    key_dropout: bool = setting(False, "keep dropout on in the key encoder")
    queue_dtype: Literal["float32", "bfloat16", "float16"] = setting("float32", "type the queues are kept in")
    average: Literal["sharded", "replicated"] = setting(
        "sharded", "'sharded': each rank averages its slice and all gather; 'replicated': every rank averages all"
    )


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, clipping and the schedule."""

    learning_rate: float = setting(1e-4, "peak learning rate")
    warmup_steps: int = setting(0, "applied steps of linear warm-up; 0: warmup_fraction of the run")
    warmup_fraction: float = setting(0.1, "share of the run that warms up, where warmup_steps is 0")
    adam_beta1: float = setting(0.9, "AdamW beta 1")
    adam_beta2: float = setting(0.999, "AdamW beta 2")
    adam_eps: float = setting(1e-6, "AdamW epsilon")
    weight_decay: float = setting(0.01, "weight decay; none on biases and LayerNorm")
    max_grad_norm: float = setting(1.0, "gradient clipping by global norm; 0: off")


@dataclass(frozen=True)
class TrainConfig:
    """The run itself: length, batch, precision, what is written and when."""

    output: str = setting("runs/pretrain", "folder of the run: checkpoints, logs, curves")
    steps: int = setting(0, "steps (attempted global batches) to train; 0: as many as `epochs` gives")
    epochs: float = setting(1.0, "passes over the training sentences, where steps is 0")
    global_batch_sentences: int = setting(256, "sentences a step over all ranks")
    micro_batch_sentences: int = setting(
        0, "sentences a rank takes through the model at once; 0: its whole share on a GPU, up to 32 on a CPU"
    )
    precision: Literal["auto", "float16", "bfloat16", "float32"] = setting(
        "auto", "auto: float16 on a GPU, bfloat16 on a CPU that has it, else float32"
    )
    seed: int = setting(0, "seed of order, corruption, start weights and dropout")
    checkpoint_every_steps: int = setting(1_000, "steps between checkpoints; 0: none by steps")
    checkpoint_every_minutes: float = setting(0.0, "minutes between checkpoints; 0: none by time")
    keep_checkpoints: int = setting(3, "newest checkpoints that are kept")
    resume: str = setting(
        "never", "'auto': newest valid checkpoint of the output folder, else start; 'never'; or a checkpoint's folder"
    )
    evaluate_every_steps: int = setting(
        1_000, "steps between evaluations on the held-out sentences; 0: only at the end"
    )
    evaluate_sentences: int = setting(4_096, "held-out sentences an evaluation reads, at most; 0: none")
    log_every_steps: int = setting(10, "steps between rows of metrics.jsonl and TensorBoard")
    check_every_steps: int = setting(
        500, "steps between comparisons of key encoder and queues over the ranks; 0: only at the start"
    )
    max_skipped_steps: int = setting(20, "skipped steps in a row (overflow) that stop the run")
    grace_time_s: float = setting(30.0, "seconds between a request to stop and the kill that follows it")
    timeout_s: float = setting(1_800.0, "seconds after which a collective without answer ends the run")
    kernels: Literal["auto", "torch", "apex"] = setting(
        "auto", "fused kernels: the best that is present, or one source"
    )
    compile: bool = setting(False, "torch.compile the encoder's layers")


class RunSettings(Protocol):
    """What every kind of run sets about its arithmetic."""

    @property
    def precision(self) -> str: ...

    @property
    def kernels(self) -> str: ...


class EngineSettings(Protocol):
    """What the engine, its optimizer and its schedule take from the config of any kind of run."""

    @property
    def optimizer(self) -> OptimizerConfig: ...

    @property
    def train(self) -> RunSettings: ...


@dataclass(frozen=True)
class Config:
    """All settings of a pre-training run."""

    data: DataConfig = field(default_factory=DataConfig)
    corruption: CorruptionConfig = field(default_factory=CorruptionConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objectives: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    moco: MocoConfig = field(default_factory=MocoConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


PRESETS: Mapping[str, Mapping[str, Any]] = {
    # A model small enough for two CPU cores, on the embedded corpus: minutes, not hours. With so few steps dropout and
    # a low rate only cost time, and queues must be young beside the key encoder's memory of 1 / (1 - m) steps, or keys
    # are told apart by their age.
    "demo": {
        "hidden_size": 128,
        "layers": 2,
        "attention_heads": 2,
        "intermediate_size": 512,
        "contrastive_size": 128,
        "dropout": 0.0,
        "cspo_weight": 1.0,
        "momentum": 0.998,
        "temperature": 0.05,
        "queue_keys": 1_024,
        "learning_rate": 2e-3,
        "global_batch_sentences": 64,
        "steps": 800,
        "output": "runs/demo",
        "checkpoint_every_steps": 200,
        "evaluate_every_steps": 200,
        "evaluate_sentences": 512,
        "log_every_steps": 5,
        "check_every_steps": 100,
    },
    # Section 3.3 and the authors' released settings.
    "paper": {
        "encoder": "bert-base-cased",
        "view_masks": "each",
        "normalize": False,
        "learning_rate": 1e-4,
        "warmup_steps": 18_000,
        "steps": 40_000,
        "output": "runs/paper",
    },
    # Section 3.3, unsupervised pre-training on NYT: ten epochs, a tenth of them warm-up.
    "nyt": {
        "encoder": "bert-base-cased",
        "view_masks": "each",
        "normalize": False,
        "learning_rate": 5e-5,
        "warmup_fraction": 0.1,
        "epochs": 10.0,
        "output": "runs/nyt",
    },
}


def validate(config: Config) -> None:
    """Check ranges and contradictions that need neither data nor ranks. Raises ConfigError."""
    check_ranges(config, _RANGES, _POSITIVE)
    corruption, model, train = config.corruption, config.model, config.train
    if not (config.objectives.tbo or config.objectives.spo or config.objectives.cspo):
        raise ConfigError("tbo, spo and cspo are all off: nothing would be trained; switch one on")
    if corruption.permutations > 6:
        raise ConfigError(f"permutations={corruption.permutations}: three parts have only 3! = 6 orders; choose 1..6")
    if corruption.min_permuted_words < 3:
        raise ConfigError(
            f"min_permuted_words={corruption.min_permuted_words}: first word, middle and last word need 3; choose >= 3"
        )
    if model.encoder is None and model.hidden_size % model.attention_heads:
        raise ConfigError(
            f"hidden_size={model.hidden_size} is not divisible by attention_heads={model.attention_heads}"
        )
    if not model.cnn_kernels or min(model.cnn_kernels) < 1:
        raise ConfigError(f"cnn_kernels={model.cnn_kernels}: give at least one width, each 1 or more")
    if train.steps == 0 and train.epochs == 0:
        raise ConfigError("steps=0 and epochs=0: nothing would be trained; set one of them")
    if train.steps and config.optimizer.warmup_steps > train.steps:
        raise ConfigError(
            f"warmup_steps={config.optimizer.warmup_steps} is longer than the run, steps={train.steps}; "
            "lower warmup_steps or raise steps"
        )


# leaf: (lowest, highest, lowest allowed, highest allowed)
_RANGES: Mapping[str, tuple[float, float, bool, bool]] = {
    "span_width_p": (0, 1, False, True),
    "tbo_fraction": (0, 1, True, True),
    "dropout": (0, 1, True, False),
    "momentum": (0, 1, True, False),
    "warmup_fraction": (0, 1, True, True),
    "adam_beta1": (0, 1, True, False),
    "adam_beta2": (0, 1, True, False),
}
_POSITIVE = frozenset(
    "prefetch_steps max_span_words permutations hidden_size layers attention_heads intermediate_size cnn_channels "
    "span_size attention_size position_size tbo_offset_size tbo_offset_rows contrastive_size queue_keys temperature "
    "learning_rate adam_eps global_batch_sentences keep_checkpoints log_every_steps max_skipped_steps timeout_s".split()
)


Range = tuple[float, float, bool, bool]


def check_ranges(config: Any, ranges: Mapping[str, Range], positive: Collection[str]) -> None:
    """Numbers of all sections: inside `ranges` where named there, above 0 where in `positive`, else 0 or more."""
    for section in vars(config).values():
        for name, value in vars(section).items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if value != value or value in (float("inf"), float("-inf")):
                raise ConfigError(f"{name}={value}: must be a finite number")
            low, high, low_allowed, high_allowed = ranges.get(name, (0, float("inf"), name not in positive, True))
            if (
                value < low
                or value > high
                or (value == low and not low_allowed)
                or (value == high and not high_allowed)
            ):
                bounds = f"{'[' if low_allowed else '('}{low}, {high}{']' if high_allowed else ')'}"
                raise ConfigError(f"{name}={value}: must lie in {bounds}")
