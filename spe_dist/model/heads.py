"""The block that all heads are made of, and the heads themselves (METHOD, Network and token boundary objective).

The predecessor's order of operations is Linear, GELU, LayerNorm (eps 1e-12), Dropout; weights start as
normal(0, 0.02), biases as 0. Its token boundary MLP is as wide as the encoder, its decoders have biases, none is tied:
what is tied here is a setting (METHOD, Beyond the paper).

Legend of the shape suffixes:
    Q sequences, M token boundary targets, P permuted spans, Y targets of masked language modelling, N rows,
    D hidden size, H span size, C contrastive size, V vocabulary
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig
from transformers.activations import ACT2FN

from spe_dist.model.dropout import Dropout
from spe_dist.model.kernels import layer_norm_class
from spe_dist.model.start.assembly import read, whole

INITIAL_STD = 0.02
LAYER_NORM_EPS = 1e-12
PERMUTATIONS = 6  # orders of first word, middle words, last word

DecoderStart = Literal["random", "embeddings", "tied"]


def initialize(module: nn.Module) -> None:
    """Start values of linear and embedding layers; convolutions keep torch's default."""
    if not isinstance(module, nn.Linear | nn.Embedding):
        return
    with whole(module):
        nn.init.normal_(module.weight, 0.0, INITIAL_STD)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


class Mlp(nn.Module):
    """Linear, GELU, LayerNorm, Dropout."""

    def __init__(self, input_size: int, output_size: int, dropout: float, kernels: str = "auto", site: int = 0):
        """`site`: see `Dropout`."""
        super().__init__()
        self.linear = nn.Linear(input_size, output_size)
        self.layer_norm = layer_norm_class(kernels)(output_size, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(dropout, site)
        initialize(self.linear)

    def forward(self, x: Tensor, keys_N: Tensor | None = None) -> Tensor:
        return self.dropout(self.layer_norm(F.gelu(self.linear(x))), keys_N)


class TiedDecoder(nn.Module):
    """Scores of the vocabulary by the word embeddings, with a bias of its own.

    The weight is a parameter of both modules, so that an engine that shards gathers it for each. A state_dict has it
    once, with the embeddings.
    """

    is_frozen: bool = False
    """Whether the encoder does not learn now: then its embeddings learn nothing here either."""

    def __init__(self, embeddings: nn.Embedding, bias_V: Tensor | None = None):
        super().__init__()
        self.weight = embeddings.weight
        self.bias = nn.Parameter(torch.zeros(embeddings.num_embeddings) if bias_V is None else bias_V.clone())

    def forward(self, x_ND: Tensor) -> Tensor:
        """[N, V]."""
        return F.linear(x_ND, self.weight.detach() if self.is_frozen else self.weight, self.bias)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.pop(f"{prefix}weight", None)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *others: Any) -> None:
        """Loads the bias; the weight is loaded with the embeddings."""
        super()._load_from_state_dict({**state_dict, f"{prefix}weight": self.weight.detach()}, prefix, *others)


def start_as_embeddings(decoder: nn.Linear, embeddings: nn.Embedding, bias_V: Tensor | None = None) -> None:
    """Give a decoder the word embeddings' weights as they are now; the bias is 0 unless it is given."""
    weight_VD = read(embeddings)["weight"]
    with whole(decoder), torch.no_grad():
        decoder.weight.copy_(weight_VD)
        decoder.bias.zero_() if bias_V is None else decoder.bias.copy_(bias_V)


class TokenBoundaryHead(nn.Module):
    """Scores of the vocabulary for a hidden piece, from its word's first piece and its offset inside the word."""

    def __init__(
        self,
        hidden_size: int,
        vocab_size: int,
        offset_size: int,
        offset_rows: int,
        dropout: float,
        kernels: str = "auto",
        decoder: DecoderStart = "random",
        embeddings: nn.Embedding | None = None,
    ):
        """`embeddings`: the encoder's of words, which a `decoder` other than `random` needs."""
        super().__init__()
        self.offset_embedding = nn.Embedding(offset_rows, offset_size)
        self.mlp = Mlp(hidden_size + offset_size, hidden_size, dropout, kernels)
        self.decoder: nn.Module = _new_decoder(decoder, hidden_size, vocab_size, embeddings)
        initialize(self.offset_embedding)
        _start_decoder(self.decoder, decoder, embeddings)

    def forward(self, first_piece_states_MD: Tensor, offset_M: Tensor, keys_M: Tensor | None = None) -> Tensor:
        """Logits [M, V]; offsets past the table take its last row."""
        rows_M = offset_M.clamp(max=self.offset_embedding.num_embeddings - 1)
        return self.decoder(self.mlp(torch.cat([first_piece_states_MD, self.offset_embedding(rows_M)], dim=1), keys_M))


def _new_decoder(
    kind: DecoderStart, hidden_size: int, vocab_size: int, embeddings: nn.Embedding | None, bias_V: Tensor | None = None
) -> nn.Module:
    if kind != "tied":
        return nn.Linear(hidden_size, vocab_size)
    assert embeddings is not None
    return TiedDecoder(embeddings, bias_V)


def _start_decoder(
    decoder: nn.Module, kind: DecoderStart, embeddings: nn.Embedding | None, bias_V: Tensor | None = None
) -> None:
    """Start values of what `_new_decoder` gives; a tied one has them."""
    initialize(decoder)
    if kind == "embeddings":
        assert isinstance(decoder, nn.Linear) and embeddings is not None
        start_as_embeddings(decoder, embeddings, bias_V)


class MaskedLanguageTransform(nn.Module):
    """Linear, the encoder's activation, LayerNorm: `cls.predictions.transform` of BERT."""

    def __init__(self, config: BertConfig, kernels: str = "auto"):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = layer_norm_class(kernels)(config.hidden_size, eps=config.layer_norm_eps)
        self.activation = ACT2FN[config.hidden_act] if isinstance(config.hidden_act, str) else config.hidden_act
        with whole(self.dense):
            nn.init.normal_(self.dense.weight, 0.0, config.initializer_range)
            nn.init.zeros_(self.dense.bias)

    def forward(self, states_YD: Tensor) -> Tensor:
        return self.LayerNorm(self.activation(self.dense(states_YD)))


class MaskedLanguageHead(nn.Module):
    """Scores of the vocabulary for pieces of a sentence, from their states: `cls.predictions` of BERT."""

    def __init__(
        self,
        config: BertConfig,
        embeddings: nn.Embedding,
        decoder: DecoderStart = "tied",
        start: Mapping[str, Tensor] | None = None,
        kernels: str = "auto",
    ):
        """`start`: what a checkpoint has by the names behind `cls.predictions.`, transform and bias; else random."""
        super().__init__()
        start = start or {}
        bias_V = start.get("bias")
        self.transform = MaskedLanguageTransform(config, kernels)
        self.decoder = _new_decoder(decoder, config.hidden_size, config.vocab_size, embeddings, bias_V)
        _start_decoder(self.decoder, decoder, embeddings, bias_V)
        for name, module in self.transform.named_children() if start else ():
            with whole(module), torch.no_grad():
                for key, parameter in module.named_parameters():
                    parameter.copy_(start[f"transform.{name}.{key}"])

    def forward(self, states_YD: Tensor) -> Tensor:
        """Logits [Y, V]."""
        return self.decoder(self.transform(states_YD))


class PermutationHead(nn.Module):
    """Scores of the six orders of a span's parts, from its span vector."""

    def __init__(self, span_size: int, dropout: float, kernels: str = "auto"):
        super().__init__()
        self.mlp = Mlp(span_size, span_size, dropout, kernels, site=2)  # 0 and 1 are the span encoder's
        self.decoder = nn.Linear(span_size, PERMUTATIONS)
        initialize(self.decoder)

    def forward(self, span_vectors_PH: Tensor, keys_P: Tensor | None = None) -> Tensor:
        return self.decoder(self.mlp(span_vectors_PH, keys_P))


class ContrastiveHead(nn.Module):
    """Two MLP layers between span pair vectors and the vectors that are compared."""

    def __init__(self, span_size: int, contrastive_size: int, dropout: float, kernels: str = "auto"):
        super().__init__()
        self.layers = nn.ModuleList(
            [
                Mlp(span_size, contrastive_size, dropout, kernels, site=1),  # 0 is the span pair encoder's
                Mlp(contrastive_size, contrastive_size, dropout, kernels, site=2),
            ]
        )

    def forward(self, pair_vectors_QH: Tensor, keys_Q: Tensor | None = None) -> Tensor:
        x = pair_vectors_QH
        for layer in self.layers:
            x = layer(x, keys_Q)
        return x
