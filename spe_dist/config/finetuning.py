"""Every setting of a fine-tuning run: frozen dataclasses and their checks (METHOD, Fine-tuning).

As in `pretraining.py`, names are unique over all sections.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from spe_dist.config import shared as config_shared
from spe_dist.config.shared import NetworkConfig, RunConfig, check_bounds, check_network, check_rollback, setting
from spe_dist.errors import ConfigError
from spe_dist.utils.reading.json_file import shown

TYPING_FEATURES = ("width", "cls")
PAIR_FEATURES = ("entities", "between", "types", "widths")


@dataclass(frozen=True)
class DataConfig:
    """Corpora, and how sentences are cut."""

    train: str | None = setting(None, "training corpus, in any format that spe corpus reads", common=True)
    dev: str | None = setting(
        None, "corpus that chooses the best epoch; none: the last epoch is kept, nothing stops early", common=True
    )
    test: str | None = setting(None, "corpus that is scored once, at the end", common=True)
    format: Literal[
        "auto",
        "dygie",
        "spert",
        "pspe",
        "nyt",
        "plain",
        "doccano",
        "label_studio",
        "prodigy",
        "pubtator",
        "conll",
        "multihead",
        "docred",
        "triples",
        "brat",
        "predicted",
    ] = setting("auto", "format of the corpora (auto: by content)")
    language: str | None = setting(
        None,
        "language of raw text (en, de, zh, ...), for its words and sentence ends, in corpora by character and when the "
        "model predicts; auto: by the script of each paragraph; none: that of the start where it has one, else auto",
    )
    cut_words: Literal["widen", "drop"] = setting(
        "widen", "entities by character that cover a part of a word: widen them to whole words, or drop them"
    )
    concept_pairs: Literal["all", "nearest"] = setting(
        "all",
        "a relation of concepts with several mentions (PubTator, DocRED): all pairs in a sentence, or the nearest",
    )
    train_share: float = setting(
        1.0,
        "share of the training sentences that is used, drawn by `seed`; a smaller share lies inside a larger one",
        above=0,
        high=1,
        common=True,
    )
    max_pieces: int = setting(
        0, "longest window of a sentence in pieces, [CLS] and [SEP] included; 0: as many as the encoder has positions"
    )
    context_pieces: int = setting(0, "pieces of the document read with a sentence, on each side of it; 0: none (paper)")
    symmetric: tuple[str, ...] = setting((), "relation types that are scored without direction", common=True)
    gold_entities: bool = setting(
        False, "score dev and test at the end a second time, relations between gold entities alone", common=True
    )

    @property
    def text_language(self) -> str:
        """The language, "auto" where none is named."""
        return self.language or "auto"


@dataclass(frozen=True)
class ModelConfig(NetworkConfig):
    """What training starts from, and the sizes of what starts at random."""

    start: str | None = setting(
        None,
        "exported SPE folder, pre-training checkpoint, fine-tuned folder, or name or folder of a BERT-family "
        "checkpoint; none: random weights",
        common=True,
    )
    start_encoder: Literal["query", "key"] = setting(
        "query", "which encoder of a pre-training checkpoint: 'query', or 'key', the momentum encoder"
    )
    without_cnn: bool = setting(
        False, "take the Transformer alone from the start; span and span pair encoder are random (row '-CNN')"
    )
    tokenizer: str | None = setting(None, "name, folder or vocab.txt; none: the start's own", common=True)
    context_encoder: Literal["own", "shared"] = setting(
        "own",
        "span encoder of the three contexts of a pair: 'own', which starts as the entities' does and is trained apart "
        "(the authors' released code), or 'shared' with the entities",
    )
    relation_size: int = setting(128, "width of the last layer before the relation classes", low=1)
    typing_features: tuple[str, ...] = setting(
        (), "what the typing head reads beside the span vector: width (an embedding of it), cls; none: the paper's"
    )
    pair_features: tuple[str, ...] = setting(
        (),
        "what the relation head reads beside the span pair vector: entities (their span vectors), between (that of the "
        "words between them), types and widths (embeddings, of both entities); none: the paper's",
    )
    feature_size: int = setting(25, "size of an embedding of a width or type", low=1)


@dataclass(frozen=True)
class OptimizerConfig(config_shared.OptimizerConfig):
    """AdamW with a rate for each layer, clipping and the schedule."""

    learning_rate: float = setting(2.5e-5, "peak learning rate of the encoder's top layer", above=0, common=True)
    head_learning_rate: float = setting(
        2.5e-5, "peak learning rate of all that is not the encoder", above=0, common=True
    )
    span_learning_rate: float = setting(
        0.0,
        "peak learning rate of span and span pair encoder; 0: that of the heads",
    )
    layer_decay: float = setting(
        0.9, "factor from the rate of a layer to that of the one below; embeddings lie lowest", above=0, high=1
    )
    warmup_fraction: float = setting(
        0.2, "share of the run that warms up, where warmup_steps is 0", high=1, common=True
    )
    adam_bias_correction: bool = setting(
        True,
        "AdamW's bias correction; without it the rates count more in the first thousand steps, 2.7 times at step 145, "
        "so short runs learn faster",
    )


@dataclass(frozen=True)
class SamplingConfig:
    """Scheduled sampling of the entities between which relations are trained, and spans that are none."""

    gold_epochs: int = setting(5, "epochs in which all sentences take their gold entities")
    gold_decay: float = setting(
        3.0, "k of P(gold) = k / (k + exp((e - gold_epochs) / k)) in later epochs, e counted from 0", above=0
    )
    negative_spans: int = setting(
        0, "spans of a sentence that typing learns as well in each epoch, drawn at random; 0: predicted and gold alone"
    )
    negative_width: int = setting(10, "words of the widest of them", low=1)


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """The run itself: length, batch, precision, what is written and when."""

    output: str = setting(
        "runs/finetune", "folder of the run: best model, scores, predictions, logs, checkpoints", common=True
    )
    precision: Literal["auto", "float16", "bfloat16", "mixed", "float32"] = setting(
        "auto",
        "auto: float16 on a GPU, mixed on a CPU that multiplies in bfloat16, else float32; mixed: float32 but for the "
        "encoder's matrix products, which are in bfloat16",
        common=True,
    )
    epochs: float = setting(
        200.0, "passes over the training sentences, rounded up to whole epochs", above=0, common=True
    )
    epoch_scaling: float = setting(
        0.0, "x in epochs * train_share^-x: 0 trains a share for as many epochs as all, 1 for as many steps", high=1
    )
    batch_sentences: int = setting(32, "sentences a step over all ranks, at most", low=1, common=True)
    patience: int = setting(
        30,
        "evaluations after the warm-up without a better one that end the run; 0: never",
        common=True,
    )
    evaluate_every_epochs: int = setting(1, "epochs between evaluations on dev", low=1)
    seed: int = setting(0, "seed of share, order, start weights, dropout and sampling", common=True)
    checkpoint_every_epochs: int = setting(0, "epochs between checkpoints; 0: none by epochs")
    checkpoint_every_minutes: float = setting(10.0, "minutes between checkpoints; 0: none by time")
    keep_checkpoints: int = setting(1, "newest checkpoints that are kept until the run is finished", low=1)
    push: str | None = setting(
        None, "publish the finished model on the Hugging Face hub by this name, NAME or USER/NAME", common=True
    )
    push_public: bool = setting(False, "what --push makes is for everybody to see; off: for you alone")


@dataclass(frozen=True)
class FinetuneConfig:
    """All settings of a fine-tuning run."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def validate(self) -> None:
        """Check ranges and contradictions that need neither data nor ranks.

        Raises:
            ConfigError: for the first setting that is out of range or contradicts another.
        """
        check_bounds(self)
        check_rollback(self.train.rollback_on_spike)
        check_network(self.model, self.model.start)
        for name, known in (("typing_features", TYPING_FEATURES), ("pair_features", PAIR_FEATURES)):
            for feature in getattr(self.model, name):
                if feature not in known:
                    raise ConfigError(f"{name}: {shown(feature)} is none; choose from {', '.join(known)}")

    def require_inputs(self) -> None:
        """Check that there is something to train on, and a vocabulary.

        Raises:
            ConfigError: without a training corpus, or without a start and a tokenizer.
        """
        if self.data.train is None:
            raise ConfigError("no training corpus; give --train FILE (and --dev FILE to choose the best epoch by)")
        if self.model.start is None and self.model.tokenizer is None:
            raise ConfigError(
                "start=none has no vocabulary of its own; give --tokenizer NAME, FOLDER or vocab.txt, or another "
                "--start"
            )
