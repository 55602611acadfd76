"""What an export is made of, whatever it came from: one of our checkpoints, the predecessor's, or a model in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from spe_dist.config.loading import leaves, resolve
from spe_dist.config.pretraining import Config
from spe_dist.data.text.languages import AUTO

SPE = "spe."  # the span pair encoder inside PretrainingModel
ENCODER = "spe.encoder."  # the sentence encoder, by transformers' BertModel names
POOLER = "spe.encoder.pooler."
MLM = "mlm_head."  # the head of masked language modelling inside PretrainingModel
EXPORTED_SECTIONS = ("model", "objectives")
SOURCES = ("encoder", "tokenizer")  # where a run's start came from: shapes no module, and may be a local path

PoolerOrigin = Literal["trained", "start", "untrained"]
Encoder = Literal["query", "key"]


@dataclass(frozen=True)
class Parts:
    """Weights and settings of one exported model.

    `weights` are float32 by PretrainingModel's parameter names. `settings` are leaf names of ModelConfig and
    ObjectiveConfig: what is needed to build the same modules again. `pooler` (BertModel's names behind `pooler.`) is
    carried beside the weights where SPE itself does not use it. `tokenizer` is a folder of tokenizer files, a
    transformers tokenizer, or None. `language` is that of the text, "auto" where none was given. `facts` stand in the
    model card.
    """

    weights: dict[str, Tensor]
    settings: dict[str, Any]
    bert_config: dict[str, Any]
    pooler: dict[str, Tensor]
    pooler_origin: PoolerOrigin
    tokenizer: Any | Path | None = None
    encoder: Encoder = "query"
    language: str = AUTO
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> Config:
        return resolve([self.settings])

    @property
    def n_weights(self) -> int:
        """Single numbers, a pooler that is only carried along included."""
        return sum(tensor.numel() for tensor in [*self.weights.values(), *self.pooler.values()])

    @property
    def bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in [*self.weights.values(), *self.pooler.values()])


def parts_of(
    state: Mapping[str, Tensor],
    bert_config: dict[str, Any],
    settings: dict[str, Any],
    tokenizer: Any,
    facts: Mapping[str, Any] | None = None,
    language: str = AUTO,
) -> Parts:
    """The parts of a model in memory, from its state by PretrainingModel's parameter names."""
    trained = any(name.startswith(POOLER) for name in state)
    return Parts(
        weights=on_cpu(state),
        settings=settings,
        bert_config=bert_config,
        pooler={} if trained else seeded_pooler(bert_config, seed=0),
        pooler_origin="trained" if trained else "untrained",
        tokenizer=tokenizer,
        language=language,
        facts=facts or {},
    )


def on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a state in float32 on the CPU, without their history."""
    return {name: tensor.detach().to("cpu", torch.float32) for name, tensor in state.items()}


def differing(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> tuple[list[str], list[str], list[str]]:
    """Names that are missing in `given`, that it alone has, and whose tensors have another shape there."""
    unlike = [name for name in expected if name in given and expected[name].shape != given[name].shape]
    return sorted(expected.keys() - given.keys()), sorted(given.keys() - expected.keys()), unlike


def exported_settings(config: Config) -> dict[str, Any]:
    """The settings of `config` that shape the modules, by leaf name, ready for JSON."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, leaf in leaves().items()
        if leaf.section in EXPORTED_SECTIONS and name not in SOURCES
        for value in [getattr(getattr(config, leaf.section), name)]
    }


def seeded_pooler(bert_config: dict[str, Any], seed: int) -> dict[str, Tensor]:
    """A pooler as BERT starts one, from `seed`: it completes a BertModel whose own is missing, and knows nothing."""
    size = bert_config["hidden_size"]
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(size, size, generator=generator) * bert_config.get("initializer_range", 0.02)
    return {"pooler.dense.weight": weight, "pooler.dense.bias": torch.zeros(size)}
