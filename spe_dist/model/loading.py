"""The encoder that a run starts from: a BERT-family checkpoint of transformers, or random weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, BertModel
from transformers.utils import logging as transformers_logging

from spe_dist.config.pretraining import ModelConfig
from spe_dist.errors import ConfigError
from spe_dist.model.encoder import PackedBertEncoder, check_config
from spe_dist.model.start.assembly import is_kept, whole
from spe_dist.model.start.fit import check_layers, check_parameters, check_weight_files, most_telling, unlike_sizes
from spe_dist.model.start.tensor_files import ONE_FILE, TensorFiles
from spe_dist.utils.hub import model_folder
from spe_dist.utils.reading.json_file import is_number, is_whole, read_object, shown
from spe_dist.utils.reading.sums import checked
from spe_dist.utils.wording import one_line

MAX_CONFIG_BYTES = 8 << 20  # id2label of a model with many labels stands in it, too
SIZES = {  # from, to
    "vocab_size": (1, 1 << 27),
    "hidden_size": (1, 1 << 17),
    "num_hidden_layers": (1, 1 << 10),
    "num_attention_heads": (1, 1 << 12),
    "intermediate_size": (1, 1 << 19),
    "max_position_embeddings": (1, 1 << 20),
    "type_vocab_size": (1, 1 << 10),
}
SHARES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "layer_norm_eps", "initializer_range")
MLM_HEAD = "cls.predictions."
MLM_NAMES = (
    *(f"transform.{part}" for part in ("dense.weight", "dense.bias", "LayerNorm.weight", "LayerNorm.bias")),
    "bias",
)
TAKEN = frozenset({*SIZES, *SHARES, "hidden_act", "pad_token_id", "is_decoder"})


@dataclass(frozen=True)
class LoadedEncoder:
    """An encoder on the CPU in float32, and what belongs to it."""

    encoder: PackedBertEncoder  # with pooler; `build_pretraining_model` takes it off where nothing reads it
    bert_config: BertConfig
    pooler_state: dict[str, Tensor]  # dense.weight, dense.bias in float32: of the checkpoint, else seeded
    pooler_trained: bool  # False where the checkpoint had none
    source: str | None
    mlm_state: dict[str, Tensor] = field(default_factory=dict)  # its head of MLM, where asked for: see `mlm_head_of`

    @property
    def vocab_size(self) -> int:
        return self.bert_config.vocab_size


def load_encoder(
    source: str | None, config: ModelConfig, vocab_size: int, seed: int, kernels: str = "auto", mlm: bool = False
) -> LoadedEncoder:
    """The encoder named by `source` (name or folder), or one with random weights for `vocab_size` pieces.

    Dropout is the run's in both cases. ConfigError for a checkpoint of another kind, for one that lacks weights, and
    for sizes that do not fit together. Whether the vocabulary is the shards' is for the caller to check. `mlm`: whether
    the checkpoint's head of masked language modelling is wanted, too.
    """
    folder = None if source is None else _folder_of(source)
    if folder is not None:
        check_weight_files(folder)
    bert_config = random_config(config, vocab_size) if folder is None else read_bert_config(folder)
    bert_config.hidden_dropout_prob = bert_config.attention_probs_dropout_prob = config.dropout
    check_config(bert_config)
    if folder is not None:
        check_parameters(folder, bert_config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = PackedBertEncoder(bert_config, kernels)
    pooler_trained = False
    if folder is not None:
        with checked(folder, only=("config.json", ONE_FILE)):
            missing, unexpected = _fill(encoder, folder)
        pooler_trained = "pooler.dense.weight" not in missing and not _is_untrained_export(folder)
        absent = [name for name in missing if not name.startswith("pooler.")]
        if absent or unexpected:
            raise ConfigError(
                f"the checkpoint {source} is not a BERT: missing {absent[:3]}, unknown {list(unexpected)[:3]}; choose "
                "a BERT-family checkpoint"
            )
    assert encoder.pooler is not None
    pooler_state = {name: value.detach().clone() for name, value in encoder.pooler.state_dict().items()}
    mlm_state = mlm_head_of(folder, bert_config) if mlm and folder is not None else {}
    return LoadedEncoder(encoder, bert_config, pooler_state, pooler_trained, source, mlm_state)


def _fill(encoder: PackedBertEncoder, folder: Path) -> tuple[list[str], list[str]]:
    """Load a folder's weights; the names that it lacks, and those that the encoder does not know."""
    if not is_kept():
        missing, unexpected = encoder.load_state_dict(read_state(folder, encoder.config), strict=False)
        return list(missing), list(unexpected)
    return _fill_by_tensor(encoder, folder), []


def _fill_by_tensor(encoder: PackedBertEncoder, folder: Path) -> list[str]:
    """The same for an encoder of which this process keeps a part; old files without safetensors are read whole."""
    files = TensorFiles(folder) if TensorFiles.are_in(folder) else None
    state = {} if files else read_state(folder, encoder.config)
    names, missing = (files.names if files else state), []
    for path, module in encoder.named_modules():
        own = {f"{path}.{name}": parameter for name, parameter in module.named_parameters(recurse=False)}
        absent = [name for name in own if name not in names]
        missing += absent
        if not own or absent:
            continue
        with whole(module), torch.no_grad():
            for name, parameter in own.items():
                value = files.read(name) if files else state[name]
                if value.shape != parameter.shape:
                    raise unlike_sizes(folder, name, value.shape, parameter.shape)
                _check_finite({name: value}, folder)
                parameter.copy_(value)
    known = {name for name, _ in encoder.named_parameters()}
    check_layers(folder, set(names) - known, missing, encoder.config.num_hidden_layers)
    return missing


def mlm_head_of(folder: Path, bert_config: BertConfig) -> dict[str, Tensor]:
    """A checkpoint's head of masked language modelling by the names behind `cls.predictions.`; {} where it has none.

    Without the decoder's weights: in a BERT they are the word embeddings.

    Raises:
        ConfigError: it has a part of one, or one of other sizes.
    """
    if TensorFiles.are_in(folder):
        files = TensorFiles(folder)
        state = {name: files.read(MLM_HEAD + name) for name in MLM_NAMES if MLM_HEAD + name in files.names}
    else:
        loaded = read_state(folder, bert_config, BertForMaskedLM)
        state = {name: loaded[MLM_HEAD + name] for name in MLM_NAMES if MLM_HEAD + name in loaded}
    if not state:
        return {}
    width = bert_config.hidden_size
    shapes = {"transform.dense.weight": [width, width], "bias": [bert_config.vocab_size]}
    for name in MLM_NAMES:
        found, wanted = list(state[name].shape) if name in state else "missing", shapes.get(name, [width])
        if found != wanted:
            raise ConfigError(
                f"cannot read the weights of encoder '{folder}': {MLM_HEAD}{name} is {found}, not {wanted}; fetch the "
                "encoder again, or do without its head by mlm_decoder=random"
            )
    return state


def _folder_of(source: str) -> Path:
    try:
        return model_folder(source)
    except ConfigError as error:
        raise ConfigError(f"no encoder at '{source}': {error}") from error


def _is_untrained_export(folder: Path) -> bool:
    """Whether `folder` is an export whose pooler was only filled in."""
    try:
        described = read_object(folder / "spe_config.json", "copy it again")
        return described["pooler"]["origin"] == "untrained"
    except (OSError, ValueError, KeyError, TypeError):
        return False


def random_config(config: ModelConfig, vocab_size: int) -> BertConfig:
    """The sizes of an encoder that starts from random weights."""
    return BertConfig(
        vocab_size=vocab_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.attention_heads,
        intermediate_size=config.intermediate_size,
    )


def read_bert_config(folder: Path) -> BertConfig:
    """The checkpoint's config; ConfigError where there is none, it is not a BERT's or has sizes that cannot be.

    Taken are the settings that a BERT has, and no others: transformers would follow names of code and of kernels.
    """
    path = Path(folder) / "config.json"
    try:
        values = read_object(path, "copy it again, or give another checkpoint", ConfigError, MAX_CONFIG_BYTES)
    except FileNotFoundError:
        raise ConfigError(f"no config.json at '{folder}'; give a folder or the name of a BERT checkpoint") from None
    kind = values.get("model_type") or "bert"  # SpanBERT and SciBERT were published without
    if kind != "bert":
        raise ConfigError(
            f"encoder '{folder}' is of model_type {kind!r:.80}, supported is 'bert'; choose a BERT-family checkpoint"
        )
    _check_values(values, path)
    kept = {name: value for name, value in values.items() if name in TAKEN}
    try:
        bert_config = BertConfig.from_dict({**kept, "model_type": "bert"})
    except Exception as error:  # transformers checks types in ways of its own
        raise ConfigError(f"{path}: {one_line(error)}; copy it again, or give another checkpoint") from None
    bert_config.position_embedding_type = values.get("position_embedding_type") or "absolute"
    return bert_config


def _check_values(values: dict[str, Any], path: Path) -> None:
    """Sizes, shares and names of a BERT's config, where it gives them. Raises ConfigError."""
    for name, (low, high) in SIZES.items():
        if name in values and not is_whole(values[name], low, high):
            raise ConfigError(
                f"{path}: {name} is {shown(values[name])}, no whole number from {low} to {high:,}; copy it again"
            )
    for name in SHARES:
        if name in values and not is_number(values[name], 0, 1):
            raise ConfigError(f"{path}: {name} is {shown(values[name])}, no number from 0 to 1; copy it again")
    for name in ("hidden_act", "position_embedding_type"):
        if not isinstance(values.get(name), str | None):
            raise ConfigError(f"{path}: {name} is {shown(values[name])}, no name; copy it again")
    pad = values.get("pad_token_id")
    if pad is not None and not is_whole(pad, 0, values.get("vocab_size", BertConfig().vocab_size) - 1):
        raise ConfigError(f"{path}: pad_token_id is {shown(pad)}, no piece of the vocabulary; copy it again")


def read_state(folder: Path, bert_config: BertConfig, kind: Any = BertModel) -> dict[str, Tensor]:
    """The checkpoint's float32 weights by the names of `kind`, a model of transformers: those that it has."""
    try:
        with _quiet_transformers():
            loaded: Any = kind.from_pretrained(
                str(folder),
                config=bert_config,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                local_files_only=True,
                trust_remote_code=False,
                weights_only=True,
            )
    except Exception as error:
        raise ConfigError(
            f"cannot read the weights of encoder '{folder}': {one_line(error)}; check the folder or name"
        ) from error
    model, info = loaded
    if info["mismatched_keys"]:
        raise unlike_sizes(folder, *most_telling(info["mismatched_keys"]))
    check_layers(folder, info["unexpected_keys"], info["missing_keys"], bert_config.num_hidden_layers)
    missing = set(info["missing_keys"])
    state = {name: value for name, value in model.state_dict().items() if name not in missing}
    _check_finite(state, folder)
    return state


def _check_finite(state: Mapping[str, Tensor], folder: Path) -> None:
    if name := first_not_finite(state):
        raise ConfigError(f"the weights of encoder '{folder}': {name} holds numbers that are not finite; copy it again")


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor with a number that is infinite or none; None where all are finite.

    A sum is finite only where every number is, and costs a tenth of looking at each.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or math.isfinite(float(tensor.sum(dtype=torch.float32))):
            continue
        if not bool(torch.isfinite(tensor.float()).all()):
            return name
    return None


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No progress bar, no report of the weights of other heads: what matters is checked by `load_encoder`."""
    verbosity, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bar:
            transformers_logging.enable_progress_bar()
