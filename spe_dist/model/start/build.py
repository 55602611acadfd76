"""Building the networks of a run from its settings: the model that is trained, and the key encoder beside it."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from spe_dist.config.pretraining import Config
from spe_dist.errors import ConfigError
from spe_dist.model.encoder import PackedBertEncoder
from spe_dist.model.heads import ContrastiveHead, MaskedLanguageHead, PermutationHead, TokenBoundaryHead
from spe_dist.model.kernels import compile_model
from spe_dist.model.pair import PairEncoder
from spe_dist.model.span import SpanEncoder
from spe_dist.model.spe import KeyEncoder, PretrainingModel, SpeModel


def build_spe_model(config: Config, encoder: PackedBertEncoder) -> SpeModel:
    """The parts that the objectives of `config` need, around `encoder`; weights from the ambient generator."""
    model, kernels, hidden_size = config.model, config.train.kernels, encoder.config.hidden_size
    span_encoder = pair_encoder = contrastive_head = None
    if config.objectives.spo or config.objectives.cspo:
        span_encoder = SpanEncoder(
            hidden_size, model.cnn_kernels, model.cnn_channels, model.span_size, model.dropout, kernels
        )
    if config.objectives.cspo:
        pair_encoder = PairEncoder(
            hidden_size,
            model.span_size,
            model.attention_size,
            model.position_size,
            model.pair_activation,
            model.dropout,
        )
        if model.contrastive_head:
            contrastive_head = ContrastiveHead(model.span_size, model.contrastive_size, model.dropout, kernels)
    if pair_encoder is None or model.cls_source != "pooler":
        encoder.pooler = None
    elif encoder.pooler is None:
        raise ConfigError("cls_source=pooler, but the encoder has no pooler; use cls_source=state")
    return SpeModel(encoder, span_encoder, pair_encoder, contrastive_head)


def build_pretraining_model(
    config: Config, encoder: PackedBertEncoder, mlm_start: Mapping[str, Tensor] | None = None
) -> PretrainingModel:
    """The model of a run around `encoder` (which loses a pooler that nothing reads). Heads start from `seed`.

    `mlm_start`: the checkpoint's own head of masked language modelling, see `MaskedLanguageHead`.
    """
    objectives, model = config.objectives, config.model
    encoder.encoder.recompute = config.train.activation_checkpointing
    if config.data.max_pieces > encoder.config.max_position_embeddings:
        raise ConfigError(
            f"max_pieces={config.data.max_pieces} is more than the encoder's {encoder.config.max_position_embeddings} "
            "positions; lower max_pieces"
        )
    tbo_head = spo_head = mlm_head = None
    embeddings = encoder.embeddings.word_embeddings
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        spe = build_spe_model(config, encoder)
        if objectives.tbo:
            tbo_head = TokenBoundaryHead(
                encoder.config.hidden_size,
                encoder.config.vocab_size,
                model.tbo_offset_size,
                model.tbo_offset_rows,
                model.dropout,
                config.train.kernels,
                model.tbo_decoder,
                embeddings,
            )
        if objectives.spo:
            spo_head = PermutationHead(model.span_size, model.dropout, config.train.kernels)
        if objectives.mlm:
            start = mlm_start if model.mlm_decoder != "random" else None
            mlm_head = MaskedLanguageHead(encoder.config, embeddings, model.mlm_decoder, start, config.train.kernels)
    if config.train.compile:
        compile_model(spe, (tbo_head, spo_head, mlm_head))
    return PretrainingModel(spe, tbo_head, spo_head, mlm_head)


def build_key_encoder(model: PretrainingModel, config: Config) -> KeyEncoder:
    """An exact copy of `model.spe` without gradient; its dropout is off unless `key_dropout` is on."""
    if model.spe.pair_encoder is None:
        raise ConfigError("cspo is off, there is no key encoder; switch cspo on")
    spe = copy.deepcopy(model.spe)
    return _as_key_encoder(spe, config)


def largest_part(keys: KeyEncoder) -> int:
    """Parameters of the largest part."""
    return max(sum(parameter.numel() for parameter in part.parameters()) for part in keys.parts())


def build_empty_key_encoder(model: PretrainingModel, config: Config) -> KeyEncoder:
    """The same without values: its parameters are on `meta`, its buffers those of `model.spe`.

    For a model whose ranks have only parts of its weights, of which no copy can be made.
    """
    query = model.spe
    with torch.device("meta"):
        encoder = PackedBertEncoder(query.encoder.config, config.train.kernels, query.encoder.pooler is not None)
        spe = build_spe_model(config, encoder)
    encoder.product_dtype = query.encoder.product_dtype
    for name, buffer in query.named_buffers():
        owner, _, leaf = name.rpartition(".")
        spe.get_submodule(owner)._buffers[leaf] = buffer.detach().clone()
    return _as_key_encoder(spe, config)


def _as_key_encoder(spe: SpeModel, config: Config) -> KeyEncoder:
    keys = KeyEncoder(spe.encoder, spe.span_encoder, spe.pair_encoder, spe.contrastive_head)
    keys.normalize, keys.dropout_on = config.moco.normalize, config.moco.key_dropout
    keys.requires_grad_(False)
    if config.train.compile:
        compile_model(keys)
    return keys.train()
