"""Every setting of a pre-training run: frozen dataclasses, presets, checks.

`config_loading.py` fills them from presets, YAML files and the command line. Leaf names are unique over all
sections, so that the command line needs no dots (`--learning_rate 1e-4`).

What fine-tuning sets too stands in `config_shared.py`. Neither knows of torch, so that `--help` answers at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from spe_dist.config.shared import (
    NetworkConfig,
    OptimizerConfig,
    Range,
    RunConfig,
    check_network,
    check_ranges,
    setting,
)
from spe_dist.errors import ConfigError


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
class ModelConfig(NetworkConfig):
    """Encoder, span encoder, span pair encoder and heads."""

    encoder: str | None = setting(
        None, "name or folder of a BERT-family checkpoint to start from; none: random weights"
    )
    tokenizer: str | None = setting(None, "name, folder or vocab.txt; none: the encoder's, else the shards' own")
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
class TrainConfig(RunConfig):
    """The run itself: length, batch, precision, what is written and when."""

    output: str = setting("runs/pretrain", "folder of the run: checkpoints, logs, curves")
    steps: int = setting(0, "steps (attempted global batches) to train; 0: as many as `epochs` gives")
    epochs: float = setting(1.0, "passes over the training sentences, where steps is 0")
    global_batch_sentences: int = setting(256, "sentences a step over all ranks")
    micro_batch_sentences: int = setting(
        0, "sentences a rank takes through the model at once; 0: its whole share on a GPU, up to 32 on a CPU"
    )
    seed: int = setting(0, "seed of order, corruption, start weights and dropout")
    checkpoint_every_steps: int = setting(1_000, "steps between checkpoints; 0: none by steps")
    evaluate_every_steps: int = setting(
        1_000, "steps between evaluations on the held-out sentences; 0: only at the end"
    )
    evaluate_sentences: int = setting(4_096, "held-out sentences an evaluation reads, at most; 0: none")
    check_every_steps: int = setting(
        500, "steps between comparisons of key encoder and queues over the ranks; 0: only at the start"
    )
    grace_time_s: float = setting(30.0, "seconds between a request to stop and the kill that follows it")
    compile: bool = setting(False, "torch.compile the encoder's layers")


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
    check_network(model, model.encoder)
    if train.steps == 0 and train.epochs == 0:
        raise ConfigError("steps=0 and epochs=0: nothing would be trained; set one of them")
    if train.steps and config.optimizer.warmup_steps > train.steps:
        raise ConfigError(
            f"warmup_steps={config.optimizer.warmup_steps} is longer than the run, steps={train.steps}; "
            "lower warmup_steps or raise steps"
        )


_RANGES: Mapping[str, Range] = {
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
