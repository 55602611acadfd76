"""The encoder that a run starts from: a BERT-family checkpoint of transformers, or random weights."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, BertModel
from transformers.utils import logging as transformers_logging

from spe_dist.config.pretraining import ModelConfig
from spe_dist.errors import ConfigError
from spe_dist.model.encoder import PackedBertEncoder, check_config
from spe_dist.utils.hub import model_folder


@dataclass(frozen=True)
class LoadedEncoder:
    """An encoder on the CPU in float32, and what belongs to it."""

    encoder: PackedBertEncoder  # with pooler; `build_pretraining_model` takes it off where nothing reads it
    bert_config: BertConfig
    pooler_state: dict[str, Tensor]  # dense.weight, dense.bias in float32: of the checkpoint, else seeded
    pooler_trained: bool  # False where the checkpoint had none
    source: str | None

    @property
    def vocab_size(self) -> int:
        return self.bert_config.vocab_size


def load_encoder(
    source: str | None, config: ModelConfig, vocab_size: int, seed: int, kernels: str = "auto"
) -> LoadedEncoder:
    """The encoder named by `source` (name or folder), or one with random weights for `vocab_size` pieces.

    Dropout is the run's in both cases. ConfigError for a checkpoint of another kind, for one that lacks weights, and
    for sizes that do not fit together. Whether the vocabulary is the shards' is for the caller to check.
    """
    folder = None if source is None else _folder_of(source)
    bert_config = random_config(config, vocab_size) if folder is None else read_bert_config(folder)
    bert_config.hidden_dropout_prob = bert_config.attention_probs_dropout_prob = config.dropout
    check_config(bert_config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = PackedBertEncoder(bert_config, kernels)
    pooler_trained = False
    if folder is not None:
        state = read_state(folder, bert_config)
        pooler_trained = "pooler.dense.weight" in state and not _is_untrained_export(folder)
        missing, unexpected = encoder.load_state_dict(state, strict=False)
        absent = [name for name in missing if not name.startswith("pooler.")]
        if absent or unexpected:
            raise ConfigError(
                f"the checkpoint {source} is not a BERT: missing {absent[:3]}, unknown {list(unexpected)[:3]}; choose "
                "a BERT-family checkpoint"
            )
    assert encoder.pooler is not None
    pooler_state = {name: value.detach().clone() for name, value in encoder.pooler.state_dict().items()}
    return LoadedEncoder(encoder, bert_config, pooler_state, pooler_trained, source)


def _folder_of(source: str) -> Path:
    try:
        return model_folder(source)
    except ConfigError as error:
        raise ConfigError(f"no encoder at '{source}': {error}") from error


def _is_untrained_export(folder: Path) -> bool:
    """Whether `folder` is an export whose pooler was only filled in."""
    try:
        described = json.loads((folder / "spe_config.json").read_text(encoding="utf-8"))
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
    """The checkpoint's config; ConfigError where there is none or it is not a BERT's."""
    try:
        values, _ = BertConfig.get_config_dict(str(folder))
    except Exception as error:
        raise ConfigError(
            f"no encoder at '{folder}': {error}; give a folder or the name of a BERT checkpoint"
        ) from error
    if not values:
        raise ConfigError(f"no config.json at '{folder}'; give a folder or the name of a BERT checkpoint")
    kind = values.get("model_type") or "bert"  # SpanBERT and SciBERT were published without
    if kind != "bert":
        raise ConfigError(
            f"encoder '{folder}' is of model_type '{kind}', supported is 'bert'; choose a BERT-family checkpoint"
        )
    bert_config = BertConfig.from_dict({**values, "model_type": "bert"})
    position_kind = values.get("position_embedding_type") or "absolute"
    bert_config.position_embedding_type = position_kind
    return bert_config


def read_state(folder: Path, bert_config: BertConfig) -> dict[str, Tensor]:
    """The checkpoint's float32 weights by BertModel's names; pooler entries only where the checkpoint has them."""
    try:
        with _quiet_transformers():
            loaded: Any = BertModel.from_pretrained(
                str(folder), config=bert_config, dtype=torch.float32, output_loading_info=True
            )
    except Exception as error:
        raise ConfigError(
            f"cannot read the weights of encoder '{folder}': {error}; check the folder or name"
        ) from error
    model, info = loaded
    missing = set(info["missing_keys"])
    return {name: value for name, value in model.state_dict().items() if name not in missing}


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
