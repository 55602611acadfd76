"""Every setting of a pre-training run: frozen dataclasses and their checks.

`loading.py` fills them from presets, YAML files and the command line. Names are unique over all sections, so that the
command line needs no dots (`--learning_rate 1e-4`).

What fine-tuning sets too stands in `shared.py`. Nothing in this package imports torch: `--help` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from spe_dist.config import shared
from spe_dist.config.shared import (
    NetworkConfig,
    RunConfig,
    check_bounds,
    check_network,
    check_rollback,
    setting,
)
from spe_dist.errors import ConfigError


@dataclass(frozen=True)
class DataConfig:
    """Where sentences come from and in what order."""

    shards: str | None = setting(
        None, "folder or URL of shards with a manifest.json; none: made-up demo text", common=True
    )
    cache_dir: str | None = setting(
        None, "where shards of a URL are kept, best on a disk of the node; none: the user's cache folder"
    )
    cache_gib: float = setting(20.0, "space for shards of URLs there; the least recently used are removed", above=0)
    fetch_timeout_s: float = setting(
        30.0,
        "seconds that a server or a pipe's command may send nothing, or less than 1 KiB/s, before it is ended and "
        "asked again",
        above=0,
    )
    loader_workers: int = setting(1, "loader processes a rank; 0 loads in the training process")
    prefetch_steps: int = setting(4, "steps that the loader prepares ahead of training", low=1)
    streams: int = setting(
        0, "equal streams that an epoch is cut into, a divisor of the global batch; 0: up to 256, by shards up to 8"
    )
    order: Literal["blocks", "shards"] = setting(
        "blocks",
        "'blocks': a stream goes from any block to any other; 'shards': it reads shard after shard, for URLs whose "
        "shards are fetched whole",
    )
    max_pieces: int = setting(128, "longest sequence in pieces, [CLS] and [SEP] included")


@dataclass(frozen=True)
class CorruptionConfig:
    """How a sentence becomes two views with targets (METHOD, one pre-training example)."""

    span_width_p: float = setting(
        0.2, "geometric distribution of span widths: probability of stopping at each word", above=0, high=1
    )
    max_span_words: int = setting(10, "widest sampled span in words", low=1)
    view_masks: Literal["each", "one"] = setting(
        "one", "'each': a [MASK] per hidden piece, as in the paper; 'one': a single [MASK] per hidden span"
    )
    permuted_spans: int = setting(2, "spans a sentence whose words may be shuffled, at most")
    min_permuted_words: int = setting(
        3, "narrowest span that may be shuffled, in words", low=3, why="first word, middle and last word need 3"
    )
    permutations: int = setting(
        1,
        "n_p of the paper: 1 draws one order; n_p > 1 takes the true order and n_p - 1 others",
        low=1,
        high=6,
        why="three parts have only 3! = 6 orders",
    )
    tbo_fraction: float = setting(0.15, "share of a sentence's pieces that become token boundary targets", high=1)
    max_tbo_pieces: int = setting(20, "token boundary targets of a sentence, at most, in pieces")
    mlm_fraction: float = setting(0.15, "share of a sentence's pieces that masked language modelling predicts", high=1)
    mlm_whole_words: bool = setting(False, "predict all pieces of a word, or none; off: any pieces")


@dataclass(frozen=True)
class ModelConfig(NetworkConfig):
    """Encoder, span encoder, span pair encoder and heads."""

    encoder: str | None = setting(
        None, "name or folder of a BERT-family checkpoint to start from; none: random weights", common=True
    )
    tokenizer: str | None = setting(None, "name, folder or vocab.txt; none: the encoder's, else the shards' own")
    tbo_offset_size: int = setting(200, "width of the embedding of a piece's offset inside its word", low=1)
    tbo_offset_rows: int = setting(150, "rows of that embedding; larger offsets are clamped", low=1)
    tbo_decoder: Literal["random", "embeddings", "tied"] = setting(
        "random",
        "weights from which pieces are scored for the token boundary objective: 'random' (paper), 'embeddings', which "
        "start as the word embeddings do and are trained apart, or 'tied', the word embeddings themselves",
    )
    mlm_decoder: Literal["random", "embeddings", "tied"] = setting("tied", "the same for masked language modelling")
    contrastive_size: int = setting(768, "width of queries and keys", low=1)
    contrastive_head: bool = setting(True, "off: span pair vectors are compared directly (row 'w/o MLP head')")

    @property
    def key_size(self) -> int:
        """Width of queries and keys as they are compared."""
        return self.contrastive_size if self.contrastive_head else self.span_size


@dataclass(frozen=True)
class ObjectiveConfig:
    """Which objectives are computed, and their weights in the total loss."""

    tbo: bool = setting(True, "token boundary objective", common=True)
    spo: bool = setting(True, "span permutation objective", common=True)
    cspo: bool = setting(True, "contrastive span pair objective", common=True)
    mlm: bool = setting(False, "masked language modelling of the plain sentence (beyond the paper)", common=True)
    tbo_weight: float = setting(0.5, "weight of the token boundary loss")
    spo_weight: float = setting(1.0, "weight of the span permutation loss")
    cspo_weight: float = setting(0.3, "weight of the contrastive loss")
    mlm_weight: float = setting(1.0, "weight of the masked language modelling loss")

    @property
    def views(self) -> bool:
        """Whether anything is learned from the two views of a sentence."""
        return self.tbo or self.spo or self.cspo


@dataclass(frozen=True)
class MocoConfig:
    """Key encoder and queues."""

    momentum: float = setting(0.999, "m in theta_k = m theta_k + (1 - m) theta_q", below=1)
    queue_keys: int = setting(65_536, "keys in each of the two queues", low=1)
    temperature: float = setting(0.2, "divisor of the similarities", above=0)
    normalize: bool = setting(True, "scale queries and keys to unit length (MoCo); off: raw products (paper)")
    key_dropout: bool = setting(False, "keep dropout on in the key encoder")
    queue: Literal["replicated", "sharded"] = setting(
        "replicated",
        "'replicated': every rank holds all keys; 'sharded': each holds its share and computes all ranks' queries "
        "against it, for queues that no rank has memory for",
    )
    queue_dtype: Literal["float32", "bfloat16", "float16"] = setting("float32", "type the queues are kept in")
    contrast_dtype: Literal["auto", "float32", "tf32", "bfloat16", "float16"] = setting(
        "auto", "type of the products of queries and queues, summed in float32; auto: float32 on a CPU, TF32 on a GPU"
    )
    average: Literal["sharded", "replicated"] = setting(
        "sharded", "'sharded': each rank averages its slice and all gather; 'replicated': every rank averages all"
    )
    key_weights: Literal["auto", "whole", "sharded"] = setting(
        "auto",
        "'whole': every rank has the key encoder's weights; 'sharded': its slice, and each layer is gathered when "
        "it is used; auto: sharded at ZeRO stage 3 where the average is",
    )


@dataclass(frozen=True)
class OptimizerConfig(shared.OptimizerConfig):
    """AdamW, clipping and the schedule, and rates of the encoder that differ from those of the heads."""

    head_learning_rate: float = setting(0.0, "peak learning rate of all that is not the encoder; 0: learning_rate")
    layer_decay: float = setting(
        1.0, "factor from the rate of an encoder layer to that of the one below; embeddings lie lowest", above=0, high=1
    )
    freeze_encoder_steps: int = setting(
        0, "applied steps in which the encoder stays as it is and all else learns; then it warms up"
    )


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """The run itself: length, batch, precision, what is written and when."""

    output: str = setting("runs/pretrain", "folder of the run: checkpoints, logs, curves", common=True)
    steps: int = setting(0, "steps (attempted global batches) to train; 0: as many as `epochs` gives", common=True)
    epochs: float = setting(1.0, "passes over the training sentences, where steps is 0", common=True)
    global_batch_sentences: int = setting(256, "sentences a step over all ranks", low=1, common=True)
    micro_batch_sentences: int = setting(
        0,
        "sentences a rank takes through the model at once; 0: its whole share on a GPU, up to 32 on a CPU",
        common=True,
    )
    seed: int = setting(0, "seed of order, corruption, start weights and dropout", common=True)
    checkpoint_every_steps: int = setting(1_000, "steps between checkpoints; 0: none by steps", common=True)
    evaluate_every_steps: int = setting(
        1_000, "steps between evaluations on the held-out sentences; 0: only at the end", common=True
    )
    evaluate_sentences: int = setting(4_096, "held-out sentences an evaluation reads, at most; 0: none")
    check_every_steps: int = setting(
        500, "steps between comparisons of key encoder and queues over the ranks; 0: only at the start"
    )
    grace_time_s: float = setting(30.0, "seconds between a request to stop and the kill that follows it")
    verbose: bool = setting(False, "print which kernel each part uses, and why")
    compile: bool = setting(
        False,
        "torch.compile encoder layers, heads and losses (not at ZeRO stage 3); off: it takes minutes at the start, "
        "makes a CPU slower, and no GPU has been measured",
    )


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

    def validate(self) -> None:
        """Check ranges and contradictions that need neither data nor ranks.

        Raises:
            ConfigError: for the first setting that is out of range or contradicts another.
        """
        check_bounds(self)
        check_rollback(self.train.rollback_on_spike)
        if not (self.objectives.views or self.objectives.mlm):
            raise ConfigError("tbo, spo, cspo and mlm are all off: nothing would be trained; switch one on")
        if self.objectives.mlm and self.corruption.mlm_fraction == 0:
            raise ConfigError("mlm=true with mlm_fraction=0 has nothing to predict; raise mlm_fraction")
        check_network(self.model, self.model.encoder)
        if self.moco.key_weights == "sharded" and (self.moco.average == "replicated" or self.train.compile):
            other = "compile=true" if self.train.compile else "average=replicated"
            raise ConfigError(f"key_weights=sharded does not go with {other}; choose key_weights=whole, or change that")
        if self.train.steps == 0 and self.train.epochs == 0:
            raise ConfigError("steps=0 and epochs=0: nothing would be trained; set one of them")
        if self.train.steps and self.optimizer.freeze_encoder_steps >= self.train.steps:
            raise ConfigError(
                f"freeze_encoder_steps={self.optimizer.freeze_encoder_steps} leaves the encoder no step of "
                f"steps={self.train.steps}; lower it or raise steps"
            )
        if self.train.steps and self.optimizer.warmup_steps > self.train.steps:
            raise ConfigError(
                f"warmup_steps={self.optimizer.warmup_steps} is longer than the run, steps={self.train.steps}; "
                "lower warmup_steps or raise steps"
            )
