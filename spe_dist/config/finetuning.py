"""Every setting of a fine-tuning run: frozen dataclasses, presets, checks (METHOD, Fine-tuning).

As `spe_dist/config/pretraining.py`: leaf names are unique over all sections, and nothing here knows of torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from spe_dist.config import shared as config_shared
from spe_dist.config.shared import NetworkConfig, Range, RunConfig, check_network, check_ranges, setting
from spe_dist.errors import ConfigError


@dataclass(frozen=True)
class DataConfig:
    """Corpora, and how sentences are cut."""

    train: str | None = setting(None, "training corpus in any format that spe corpus inspects")
    dev: str | None = setting(
        None, "corpus that chooses the best epoch; none: the last epoch is kept, nothing stops early"
    )
    test: str | None = setting(None, "corpus that is scored once, at the end")
    format: Literal["auto", "dygie", "spert", "pspe", "nyt"] = setting(
        "auto", "format of the corpora; auto: by content"
    )
    train_share: float = setting(
        1.0, "share of the training sentences that is used, drawn by `seed`; a smaller share lies inside a larger one"
    )
    max_pieces: int = setting(
        0, "longest window of a sentence in pieces, [CLS] and [SEP] included; 0: as many as the encoder has positions"
    )
    context_pieces: int = setting(0, "pieces of the document read with a sentence, on each side of it; 0: none (paper)")
    symmetric: tuple[str, ...] = setting((), "relation types that are scored without direction")


@dataclass(frozen=True)
class ModelConfig(NetworkConfig):
    """What training starts from, and the sizes of what starts at random."""

    start: str | None = setting(
        None,
        "exported SPE folder, pre-training checkpoint, fine-tuned folder, or name or folder of a BERT-family "
        "checkpoint; none: random weights",
    )
    start_encoder: Literal["query", "key"] = setting(
        "query", "which encoder of a pre-training checkpoint: 'query', or 'key', the momentum encoder"
    )
    without_cnn: bool = setting(
        False, "take the Transformer alone from the start; span and span pair encoder are random (row '-CNN')"
    )
    tokenizer: str | None = setting(None, "name, folder or vocab.txt; none: the start's own")
    context_encoder: Literal["own", "shared"] = setting(
        "own",
        "span encoder of the three contexts of a pair: 'own', which starts as the entities' does and is trained apart "
        "(the authors' released code), or 'shared' with the entities",
    )
    relation_size: int = setting(128, "width of the last layer before the relation classes")


@dataclass(frozen=True)
class OptimizerConfig(config_shared.OptimizerConfig):
    """AdamW with a rate for each layer, clipping and the schedule."""

    learning_rate: float = setting(2.5e-5, "peak learning rate of the encoder's top layer")
    head_learning_rate: float = setting(2.5e-5, "peak learning rate of all that is not the encoder")
    layer_decay: float = setting(0.9, "factor from the rate of a layer to that of the one below; embeddings lie lowest")
    warmup_fraction: float = setting(0.2, "share of the run that warms up, where warmup_steps is 0")
    adam_bias_correction: bool = setting(
        True,
        "AdamW's bias correction; without it the rates count more in the first thousand steps, 2.7 times at step 145, "
        "so short runs learn faster",
    )


@dataclass(frozen=True)
class SamplingConfig:
    """Scheduled sampling of the entities between which relations are trained."""

    gold_epochs: int = setting(5, "epochs in which all sentences take their gold entities")
    gold_decay: float = setting(
        3.0, "k of P(gold) = k / (k + exp((e - gold_epochs) / k)) in later epochs, e counted from 0"
    )


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """The run itself: length, batch, precision, what is written and when."""

    output: str = setting("runs/finetune", "folder of the run: best model, scores, predictions, logs, checkpoints")
    precision: Literal["auto", "float16", "bfloat16", "mixed", "float32"] = setting(
        "auto",
        "auto: float16 on a GPU, mixed on a CPU that multiplies in bfloat16, else float32; mixed: float32 but for the "
        "encoder's matrix products, which are in bfloat16",
    )
    epochs: float = setting(200.0, "passes over the training sentences, rounded up to whole epochs")
    epoch_scaling: float = setting(
        0.0, "x in epochs * train_share^-x: 0 trains a share for as many epochs as all, 1 for as many steps"
    )
    batch_sentences: int = setting(32, "sentences a step over all ranks, at most")
    patience: int = setting(30, "evaluations after the warm-up without a better one, at which the run ends; 0: never")
    evaluate_every_epochs: int = setting(1, "epochs between evaluations on dev")
    seed: int = setting(0, "seed of share, order, start weights, dropout and sampling")
    checkpoint_every_epochs: int = setting(0, "epochs between checkpoints; 0: none by epochs")
    checkpoint_every_minutes: float = setting(10.0, "minutes between checkpoints; 0: none by time")
    keep_checkpoints: int = setting(1, "newest checkpoints that are kept until the run is finished")


@dataclass(frozen=True)
class FinetuneConfig:
    """All settings of a fine-tuning run."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


PRESETS: Mapping[str, Mapping[str, Any]] = {
    # The authors' released settings, which are also the defaults.
    "paper": {
        "learning_rate": 2.5e-5,
        "head_learning_rate": 2.5e-5,
        "layer_decay": 0.9,
        "warmup_fraction": 0.2,
        "batch_sentences": 32,
        "epochs": 200.0,
    },
    # Encoders well below BERT-base learn with higher rates in fewer epochs; small shares get more epochs. Half the
    # paper's batch is twice the steps at the same cost, which relations need where there is little data.
    "small": {
        "batch_sentences": 16,
        "learning_rate": 1e-4,
        "head_learning_rate": 2e-4,
        "adam_bias_correction": False,  # larger steps: such short runs end before the heads have learned otherwise
        "epochs": 25.0,
        "epoch_scaling": 0.3,
        "patience": 10,
    },
}


def validate(config: FinetuneConfig) -> None:
    """Check ranges and contradictions that need neither data nor ranks. Raises ConfigError."""
    check_ranges(config, _RANGES, _POSITIVE)
    data, model = config.data, config.model
    if data.train is None:
        raise ConfigError("no training corpus; give --train FILE (and --dev FILE to choose the best epoch by)")
    if model.start is None and model.tokenizer is None:
        raise ConfigError(
            "start=none has no vocabulary of its own; give --tokenizer NAME, FOLDER or vocab.txt, or another --start"
        )
    check_network(model, model.start)


_RANGES: Mapping[str, Range] = {
    "train_share": (0, 1, False, True),
    "dropout": (0, 1, True, False),
    "layer_decay": (0, 1, False, True),
    "warmup_fraction": (0, 1, True, True),
    "adam_beta1": (0, 1, True, False),
    "adam_beta2": (0, 1, True, False),
    "epoch_scaling": (0, 1, True, True),
}
_POSITIVE = frozenset(
    "hidden_size layers attention_heads intermediate_size cnn_channels span_size attention_size position_size "
    "relation_size learning_rate head_learning_rate adam_eps gold_decay epochs batch_sentences evaluate_every_epochs "
    "keep_checkpoints log_every_steps max_skipped_steps timeout_s".split()
)
