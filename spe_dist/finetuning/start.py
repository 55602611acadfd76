"""What fine-tuning starts from: the encoder, and span and span pair encoder where the start has them (METHOD, Rows).

    exported SPE folder         encoder, span encoder and span pair encoder; what pre-training did not have is random
    pre-training checkpoint     the same, of its query or its key encoder, without an export
    fine-tuned folder           the same, its heads are left behind (SPE-DS)
    BERT-family checkpoint      the encoder alone
    none                        nothing: random weights of the given sizes

The contrastive head is never used. The sizes and choices of span and span pair encoder are those of the start where it
has them, else the run's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spe_dist.config.finetuning import FinetuneConfig, ModelConfig
from spe_dist.config.pretraining import Config
from spe_dist.config.shared import ENCODER_SIZES
from spe_dist.data.text.languages import AUTO
from spe_dist.data.text.vocabulary import RESIZE, load_tokenizer, vocabulary_pieces, vocabulary_sha256
from spe_dist.distributed.checkpoint import list_checkpoints
from spe_dist.errors import CheckpointError, ConfigError, DataError
from spe_dist.export.card import BASE_MODEL
from spe_dist.export.checkpoint import read_checkpoint
from spe_dist.export.folder import SPE_CONFIG, read_folder
from spe_dist.export.loading import empty_encoder, fill, has_tokenizer
from spe_dist.export.parts import ENCODER, POOLER, SPE, Parts
from spe_dist.extraction.joint.folder import is_extractor, network_settings
from spe_dist.model.loading import load_encoder, read_bert_config
from spe_dist.model.spe import SpeModel
from spe_dist.model.start.build import build_spe_model
from spe_dist.utils.hub import hub_name, model_folder
from spe_dist.utils.run_files import CHECKPOINTS_FOLDER, CONFIG_FILE, MODEL_FOLDER, START_FOLDER, STATE_FILE

SPAN_ENCODER = "span encoder"
MODULES = {"encoder": "sentence encoder", "span_encoder": SPAN_ENCODER, "pair_encoder": "span pair encoder"}
SPAN_MODULES = (SPAN_ENCODER, MODULES["pair_encoder"])
# Settings that the weights of span and span pair encoder fix.
SPAN_SETTINGS = ("cnn_kernels", "cnn_channels", "span_size")
PAIR_SETTINGS = ("attention_size", "position_size", "pair_activation", "cls_source")
SHORTEST_WINDOW = 8  # pieces: [CLS], a word with context on both sides, [SEP]


@dataclass(frozen=True)
class StartNetwork:
    """The network before its first step, in float32 on the CPU, and where its parts come from."""

    spe: SpeModel
    tokenizer: Any
    settings: dict[str, Any]  # of the network, by leaf name of pre-training's ModelConfig
    loaded: tuple[str, ...]  # names of the parts, for people
    random: tuple[str, ...]
    source: str
    base_model: str | None = None  # its name on the hub, or that of what it was pre-trained from
    language: str = AUTO  # of the text that it was trained on, where one was given

    @property
    def positions(self) -> int:
        """Longest sequence in pieces that the encoder has positions for."""
        return self.spe.encoder.config.max_position_embeddings

    def summary(self) -> str:
        loaded = f"{_listed(self.loaded)} from {self.source}" if self.loaded else "nothing is loaded"
        return f"start: {loaded}; random: {_listed((*self.random, 'heads of the extraction'))}"


def open_start(config: FinetuneConfig) -> StartNetwork:
    """The start that `config` names, its random parts drawn from the seed.

    Raises ConfigError, CheckpointError or DataError.
    """
    parts = _read_parts(config.model)
    start = _from_encoder(config) if parts is None else _from_parts(config, parts)
    pieces, rows = len(vocabulary_pieces(start.tokenizer)), start.spe.encoder.config.vocab_size
    if pieces > rows:
        raise DataError(
            f"the tokenizer has {pieces:,} pieces, but the encoder {start.source} embeds {rows:,}; give the encoder's "
            f"own --tokenizer{RESIZE}"
        )
    return start


def with_language(config: FinetuneConfig, start: StartNetwork) -> FinetuneConfig:
    """The settings with the start's language where the user gives none."""
    language = config.data.language or start.language
    return replace(config, data=replace(config.data, language=language))


def language_lines(config: FinetuneConfig, start: StartNetwork) -> list[str]:
    """What is to be said of a start that has a language; `config` as `with_language` gives it."""
    if start.language == AUTO:
        return []
    if start.language == config.data.text_language:
        return [f"language: {start.language}, as the start was trained"]
    return [
        f"warning: language={config.data.text_language}, as asked, but the start {start.source} was trained on text "
        f"read as {start.language}"
    ]


def check_windows(config: FinetuneConfig, start: StartNetwork) -> int:
    """Longest window in pieces. Raises ConfigError where the encoder or the context leaves no pieces for words."""
    data = config.data
    longest = data.max_pieces or start.positions
    if longest > start.positions:
        raise ConfigError(
            f"max_pieces={longest}, but the encoder {start.source} has {start.positions} positions; set max_pieces to "
            f"{start.positions} or less, or 0"
        )
    if longest < SHORTEST_WINDOW:
        raise ConfigError(f"max_pieces={longest} leaves no pieces for words; choose {SHORTEST_WINDOW} or more")
    if data.context_pieces > longest - SHORTEST_WINDOW:
        raise ConfigError(
            f"context_pieces={data.context_pieces} leaves fewer than {SHORTEST_WINDOW} of {longest} pieces for the "
            "sentence; lower context_pieces or raise max_pieces"
        )
    return longest


def _read_parts(model: ModelConfig) -> Parts | None:
    """The parts of an exported folder, a fine-tuned one or a pre-training checkpoint; None for any other start."""
    if model.start is None:
        return None
    try:
        path = model_folder(model.start)
    except ConfigError as error:
        raise CheckpointError(f"start={model.start} cannot be loaded: {error}") from error
    if is_extractor(path / MODEL_FOLDER):
        path = path / MODEL_FOLDER
    if (path / SPE_CONFIG).is_file():
        parts = read_folder(path)
        if model.start_encoder == "key" and parts.encoder != "key":
            raise ConfigError(
                f"start_encoder=key, but {path} was exported from the query encoder; give the pre-training checkpoint "
                "itself, or export it with tools/convert_checkpoint.py --encoder key"
            )
        return parts
    found = [*list_checkpoints(path), *list_checkpoints(path / CHECKPOINTS_FOLDER)]
    if (path / STATE_FILE).is_file() or found:
        step_folders = [path, *found]
        if not any((folder / START_FOLDER).is_dir() for folder in step_folders):
            raise CheckpointError(
                f"start={path} holds checkpoints of a fine-tuning that is not finished; resume it, or start from its "
                "folder `model` once there is one"
            )
        return read_checkpoint(path, model.start_encoder)
    if (path / CONFIG_FILE).is_file() and not (path / "config.json").is_file():
        raise CheckpointError(f"start={path} is a run without a checkpoint or model yet; choose another start")
    return None


def _from_encoder(config: FinetuneConfig) -> StartNetwork:
    """A BERT-family checkpoint, or nothing at all."""
    model = config.model
    if model.start_encoder == "key":
        raise ConfigError(
            f"start_encoder=key, but start={model.start} is not a pre-training checkpoint and has no momentum encoder; "
            "leave start_encoder out, or give a checkpoint of spe_dist/pretrain.py"
        )
    settings = _network_part(model)
    network = network_settings(settings)
    if model.start is not None:
        read_bert_config(model_folder(model.start))  # a wrong start is reported before a tokenizer that is missing
    tokenizer = load_tokenizer(str(model.tokenizer or model.start))
    vocabulary = len(vocabulary_pieces(tokenizer))
    loaded = load_encoder(model.start, network.model, vocabulary, config.train.seed, config.train.kernels)
    spe = _build(network, loaded.encoder, config)
    settings |= _encoder_sizes(spe)
    if model.start is None:
        return StartNetwork(spe, tokenizer, settings, (), tuple(MODULES.values()), "none")
    pooler = ("pooler",) if network.model.cls_source == "pooler" and not loaded.pooler_trained else ()
    random = (*pooler, *SPAN_MODULES)
    return StartNetwork(spe, tokenizer, settings, (MODULES["encoder"],), random, model.start, hub_name(model.start))


def _from_parts(config: FinetuneConfig, parts: Parts) -> StartNetwork:
    """What pre-training or another fine-tuning left."""
    model = config.model
    wanted = (ENCODER,) if model.without_cnn else tuple(f"{SPE}{module}." for module in MODULES)
    weights = {name: value for name, value in parts.weights.items() if name.startswith(wanted)}
    settings = _settings(model, weights, vars(parts.config.model))
    network = network_settings(settings)
    with_pooler = network.model.cls_source == "pooler"
    if with_pooler:
        weights |= {f"{ENCODER}{name}": value for name, value in parts.pooler.items()}
    else:
        weights = {name: value for name, value in weights.items() if not name.startswith(POOLER)}
    with torch.random.fork_rng(devices=[]):
        encoder = empty_encoder(replace(parts, weights=weights, settings=settings))
    spe = _build(network, encoder, config)
    loaded = []
    for module, title in MODULES.items():
        prefix = f"{SPE}{module}."
        own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        if own:
            fill(spe.get_submodule(module), own, title)
            loaded.append(title)
    random = [title for title in MODULES.values() if title not in loaded]
    if with_pooler and parts.pooler_origin == "untrained":
        random.insert(0, "pooler")
    source = f"{model.start}{' (momentum encoder)' if parts.encoder == 'key' else ''}"
    settings |= _encoder_sizes(spe)
    base_model = hub_name(model.start) or parts.facts.get(BASE_MODEL)
    own = _own_tokenizer(model, parts)
    return StartNetwork(spe, own, settings, tuple(loaded), tuple(random), source, base_model, parts.language)


def _own_tokenizer(model: ModelConfig, parts: Parts) -> Any:
    """The start's tokenizer. Raises DataError where the user gives one with another vocabulary."""
    own = parts.tokenizer if isinstance(parts.tokenizer, Path) and has_tokenizer(parts.tokenizer) else None
    if own is None and model.tokenizer is None:
        raise DataError(f"start={model.start} holds no tokenizer; give --tokenizer with its vocabulary")
    if own is None or model.tokenizer is None:
        return load_tokenizer(str(model.tokenizer or own))
    given, trained = load_tokenizer(model.tokenizer), load_tokenizer(own)
    if vocabulary_sha256(given) != vocabulary_sha256(trained):
        raise DataError(
            f"tokenizer={model.tokenizer} has another vocabulary ({len(vocabulary_pieces(given)):,} pieces) than "
            f"start={model.start} was trained on ({len(vocabulary_pieces(trained)):,}); leave --tokenizer out"
        )
    return given


def _build(network: Config, encoder: Any, config: FinetuneConfig) -> SpeModel:
    network = replace(network, train=replace(network.train, kernels=config.train.kernels))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        return build_spe_model(network, encoder)


def _settings(model: ModelConfig, weights: dict[str, Tensor], theirs: dict[str, Any]) -> dict[str, Any]:
    """The network's settings: the start's for the parts that it has. ConfigError where the user asks for others."""
    settings = _network_part(model)
    for module, names in (("span_encoder", SPAN_SETTINGS), ("pair_encoder", PAIR_SETTINGS)):
        if not any(weight.startswith(f"{SPE}{module}.") for weight in weights):
            continue
        for name in names:
            if settings[name] not in (theirs[name], getattr(ModelConfig(), name)):
                raise ConfigError(
                    f"{name}={settings[name]}, but the start {model.start} was trained with {theirs[name]}; leave "
                    f"{name} out, or give --without_cnn to take its Transformer alone"
                )
            settings[name] = theirs[name]
    return settings


def _network_part(model: ModelConfig) -> dict[str, Any]:
    names = (*ENCODER_SIZES, "dropout", *SPAN_SETTINGS, *PAIR_SETTINGS)
    return {name: getattr(model, name) for name in names}


def _encoder_sizes(spe: SpeModel) -> dict[str, int]:
    bert = spe.encoder.config
    sizes = (bert.hidden_size, bert.num_hidden_layers, bert.num_attention_heads, bert.intermediate_size)
    return dict(zip(ENCODER_SIZES, sizes, strict=True))


def _listed(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
