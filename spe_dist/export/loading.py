"""Modules from exported folders and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode
from transformers import BertConfig

from spe_dist.config.loading import resolve
from spe_dist.config.pretraining import Config
from spe_dist.errors import CheckpointError, SpeError
from spe_dist.export.folder import read_folder, tokenizer_files, write_folder
from spe_dist.export.parts import POOLER, SPE, Parts, differing, exported_settings, parts_of
from spe_dist.model.encoder import PackedBertEncoder
from spe_dist.model.heads import TokenBoundaryHead
from spe_dist.model.spe import PretrainingModel, SpeModel
from spe_dist.model.start.build import build_pretraining_model, build_spe_model
from spe_dist.utils.wording import one_line

Module = TypeVar("Module", bound=torch.nn.Module)
DRAWING = frozenset({init.normal_, init.uniform_, init.kaiming_uniform_, Tensor.normal_, Tensor.uniform_})


def spe_model_of(parts: Parts) -> SpeModel:
    """The module that `parts` describe, with their weights."""
    weights = {k.removeprefix(SPE): v for k, v in parts.weights.items() if k.startswith(SPE)}
    return filled(lambda: build_spe_model(parts.config, empty_encoder(parts)), weights, "span pair encoder").eval()


def load_pretraining_model(folder: str | Path) -> PretrainingModel:
    """The whole model of an exported folder with its token boundary and permutation heads. Raises CheckpointError."""
    return pretraining_model_of(read_folder(folder))


def pretraining_model_of(parts: Parts) -> PretrainingModel:
    """The pre-training model that `parts` describe, with their weights, in eval mode."""
    positions = parts.bert_config["max_position_embeddings"]
    config = resolve([parts.settings, {"max_pieces": min(Config().data.max_pieces, positions)}])

    def build() -> PretrainingModel:
        model = build_pretraining_model(config, empty_encoder(parts))
        _fit_decoder(model, parts.weights)
        return model

    return filled(build, parts.weights, "pre-training model").eval()


def save_pretraining_model(
    model: PretrainingModel, config: Config, tokenizer: Any, folder: str | Path, overwrite: bool = False
) -> None:
    """Write a model in memory as an exported folder; `config` are the settings that it was built with."""
    parts = parts_of(model.state_dict(), model.spe.encoder.config.to_dict(), exported_settings(config), tokenizer)
    write_folder(parts, folder, overwrite)


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder has a tokenizer that can be loaded."""
    return any(file.name in ("tokenizer.json", "vocab.txt") for file in tokenizer_files(folder))


def empty_encoder(parts: Parts) -> PackedBertEncoder:
    """The sentence encoder that `parts` describe, to be filled; with a pooler where the weights have one."""
    config = BertConfig.from_dict(parts.bert_config)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = parts.config.model.dropout
    return PackedBertEncoder(config, with_pooler=any(name.startswith(POOLER) for name in parts.weights))


def _fit_decoder(model: PretrainingModel, weights: dict[str, Tensor]) -> None:
    """Give the token boundary decoder as many rows as its weights have: the predecessor's always has 28,996."""
    decoder, saved = "tbo_head.decoder.weight", weights.get("tbo_head.decoder.weight")
    if model.tbo_head is None or saved is None or saved.shape[0] == model.get_parameter(decoder).shape[0]:
        return
    offsets, dropout = model.tbo_head.offset_embedding, model.tbo_head.mlp.dropout.p
    model.tbo_head = TokenBoundaryHead(
        saved.shape[1], saved.shape[0], offsets.embedding_dim, offsets.num_embeddings, dropout
    )


def filled(build: Callable[[], Module], weights: dict[str, Tensor], what: str) -> Module:
    """The module that `build` makes, with exactly these weights: nothing is drawn, and no memory taken for other sizes.

    Raises:
        CheckpointError: settings and weights do not fit, or the settings are none that a module can have.
    """
    check_fit(shapes_of(build, what), weights, what)
    module = empty(build)
    module.load_state_dict(weights)
    return module


def empty(build: Callable[[], Module]) -> Module:
    """The module that `build` makes, to be filled: on the CPU and in float32, whatever torch's defaults are set to."""
    with torch.device("cpu"), NothingDrawn():
        return build().float()


def shapes_of(build: Callable[[], torch.nn.Module], what: str) -> dict[str, Tensor]:
    """The state of the module that `build` makes, without its numbers. Raises CheckpointError as `filled`."""
    try:
        with torch.device("meta"), NothingDrawn():
            return build().state_dict()
    except SpeError:
        raise
    except (RuntimeError, ArithmeticError, TypeError, ValueError, AssertionError) as error:
        raise CheckpointError(f"the {what} cannot have these settings ({one_line(error)}); convert it again") from None


class NothingDrawn(TorchFunctionMode):
    """Parameters of modules keep whatever memory holds: for modules that are filled as a whole."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in DRAWING:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def fill(module: torch.nn.Module, weights: dict[str, Tensor], what: str) -> None:
    """Load exactly these weights. CheckpointError, with `what` for the module, where names or shapes differ."""
    check_fit(module.state_dict(), weights, what)
    module.load_state_dict(weights)


def check_fit(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor], what: str) -> None:
    """Check that weights are those of a module: no name more or less, every shape. Raises CheckpointError."""
    missing, unknown, unlike = differing(expected, weights)
    if missing:
        heads = sorted({name.split(".")[0] for name in missing} & {"tbo_head", "spo_head", "mlm_head"})
        reason = f"the {' and '.join(heads)}" if len(heads) and len(missing) > 1 else missing[0]
        raise CheckpointError(
            f"the weights of the {what} are not complete: {reason} missing ({len(missing)} tensors). A momentum "
            "encoder is exported without the heads of TBO, SPO and MLM; convert the checkpoint with --encoder query"
        )
    if unknown or unlike:
        faults = [f"{n} is {list(weights[n].shape)}, not {list(expected[n].shape)}" for n in unlike]
        faults += [f"{n} is unknown" for n in unknown]
        raise CheckpointError(
            f"weights and settings of the {what} do not fit: {'; '.join(faults[:3])}; convert it again"
        )
