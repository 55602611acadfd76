"""BERT over a packed batch: the same numbers as transformers' BertModel, without a padded token.

Parameter names are BertModel's (`embeddings.word_embeddings.weight`, `encoder.layer.0.attention.self.query.weight`,
..., `pooler.dense.weight`), so a state_dict goes either way unchanged. Token types are all 0.

Legend of the shape suffixes:
    Q sequences, T tokens, N kept tokens, D hidden size, H heads
"""

from __future__ import annotations

import contextlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import BertConfig
from transformers.activations import ACT2FN

from spe_dist.errors import ConfigError
from spe_dist.model.attention import PaddingPlan, attend, choose_backend, plan_padding
from spe_dist.model.devices import autocast, product_dtype
from spe_dist.model.dropout import Dropout
from spe_dist.model.kernels import layer_norm_class

# On a CPU 16-bit products are oneDNN's, which makes a kernel for each shape that it meets: half a millisecond and up to
# a MiB each. Compiled parts take any number of tokens, but few numbers can be recorded as CUDA graphs. Packed batches
# have as many tokens as they happen to have, so for both these are rounded up to one of few numbers.
SIZES_PER_DOUBLING = 8
FEWEST_TOKENS = 64


class Packing:
    """Borders of the sequences, as every layer's attention needs them.

    No dataclass: torch.compile would look into the whole padding of each batch, and compile for each of them.
    """

    def __init__(
        self, cu_seqlens_Q1: Tensor, max_seqlen: int, dtype: torch.dtype, backend: str, padding: PaddingPlan | None
    ) -> None:
        self.cu_seqlens_Q1, self.max_seqlen, self.dtype = cu_seqlens_Q1, max_seqlen, dtype
        self.backend, self.padding = backend, padding


def check_config(config: BertConfig) -> None:
    """ConfigError for what this encoder does not compute."""
    values = config.to_dict()
    kind = values.get("model_type") or "bert"
    if kind != "bert":
        raise ConfigError(f"the encoder is of model_type '{kind}', supported is 'bert'; choose a BERT checkpoint")
    positions = values.get("position_embedding_type") or "absolute"
    if positions != "absolute":
        raise ConfigError(
            f"the encoder has position_embedding_type '{positions}', supported is 'absolute'; choose another checkpoint"
        )
    if values.get("is_decoder"):
        raise ConfigError("the encoder has is_decoder=true, it would not see to its right; choose another checkpoint")
    if config.hidden_size % config.num_attention_heads:
        raise ConfigError(
            f"hidden_size={config.hidden_size} is not divisible by attention_heads={config.num_attention_heads}; "
            "choose a number of heads that divides it"
        )
    if isinstance(config.hidden_act, str) and config.hidden_act not in ACT2FN:
        raise ConfigError(f"hidden_act '{config.hidden_act}' is unknown to transformers; known: {sorted(ACT2FN)}")


class Embeddings(nn.Module):
    def __init__(self, config: BertConfig, norm: type[nn.Module]):
        super().__init__()
        pad = config.pad_token_id
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=pad)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = norm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, piece_ids_T: Tensor, positions_T: Tensor) -> Tensor:
        first_type_1D = self.token_type_embeddings(torch.zeros(1, dtype=torch.int64, device=piece_ids_T.device))
        x_TD = self.word_embeddings(piece_ids_T) + first_type_1D + self.position_embeddings(positions_T)
        return self.dropout(self.LayerNorm(x_TD))


class SelfAttention(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.n_heads = config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout_p = config.attention_probs_dropout_prob

    def forward(self, x_TD: Tensor, packing: Packing) -> Tensor:
        x_TD = x_TD.to(packing.dtype)  # once, where autocast would do it for each of the three
        q_THD, k_THD, v_THD = (
            linear(x_TD).unflatten(1, (self.n_heads, -1)) for linear in (self.query, self.key, self.value)
        )
        dropout_p = self.dropout_p if self.training else 0.0
        return attend(
            packing.backend,
            q_THD,
            k_THD,
            v_THD,
            packing.cu_seqlens_Q1,
            packing.max_seqlen,
            dropout_p,
            packing.padding,
        ).flatten(1)


class ResidualOutput(nn.Module):
    """Linear, dropout, residual and LayerNorm that end both halves of a layer."""

    def __init__(self, input_size: int, config: BertConfig, norm: type[nn.Module]):
        super().__init__()
        self.dense = nn.Linear(input_size, config.hidden_size)
        self.LayerNorm = norm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, residual_TD: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(x)) + residual_TD)


class AttentionBlock(nn.Module):
    def __init__(self, config: BertConfig, norm: type[nn.Module]):
        super().__init__()
        self.self = SelfAttention(config)
        self.output = ResidualOutput(config.hidden_size, config, norm)

    def forward(self, x_TD: Tensor, packing: Packing, kept_N: Tensor | None = None) -> Tensor:
        attended_TD = self.self(x_TD, packing)
        if kept_N is not None:
            attended_TD, x_TD = attended_TD.index_select(0, kept_N), x_TD.index_select(0, kept_N)
        return self.output(attended_TD, x_TD)


class Intermediate(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        known = config.hidden_act if not isinstance(config.hidden_act, str) else ACT2FN[config.hidden_act]
        self.activation = F.gelu if config.hidden_act == "gelu" else known

    def forward(self, x_TD: Tensor) -> Tensor:
        return self.activation(self.dense(x_TD))


class Layer(nn.Module):
    def __init__(self, config: BertConfig, norm: type[nn.Module]):
        super().__init__()
        self.attention = AttentionBlock(config, norm)
        self.intermediate = Intermediate(config)
        self.output = ResidualOutput(config.intermediate_size, config, norm)

    def forward(self, x_TD: Tensor, packing: Packing, kept_N: Tensor | None = None) -> Tensor:
        x_TD = self.attention(x_TD, packing, kept_N)
        return self.output(self.intermediate(x_TD), x_TD)


class Layers(nn.Module):
    recompute: bool = False
    """Activation checkpointing: of each layer only the input is kept for the backward pass, which runs it again."""

    def __init__(self, config: BertConfig, norm: type[nn.Module]):
        super().__init__()
        self.layer = nn.ModuleList(Layer(config, norm) for _ in range(config.num_hidden_layers))

    def forward(self, x_TD: Tensor, packing: Packing, kept_N: Tensor | None = None) -> Tensor:
        last = len(self.layer) - 1
        recompute = self.recompute and torch.is_grad_enabled()
        for number, layer in enumerate(self.layer):
            inputs = (x_TD, packing, kept_N if number == last else None)
            x_TD = checkpoint(layer, *inputs, use_reentrant=False) if recompute else layer(*inputs)
        return x_TD


class Pooler(nn.Module):
    """tanh of a linear map of the [CLS] state, trained with BERT's next sentence prediction."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, cls_QD: Tensor) -> Tensor:
        return torch.tanh(self.dense(cls_QD))


class PackedBertEncoder(nn.Module):
    """BERT without padding. `pooler` may be None where nothing reads it.

    Weights start as BERT's: normal(0, initializer_range), biases 0, LayerNorm 1 and 0.
    """

    product_dtype: torch.dtype | None = None
    """Type of the matrix products of layers whose weights, sums and LayerNorms are float32; None: the weights' own."""

    fills_up: bool = False
    """Whether the numbers of tokens are rounded up everywhere, not only where 16-bit products of a CPU want it."""

    def __init__(self, config: BertConfig, kernels: str = "auto", with_pooler: bool = True):
        super().__init__()
        check_config(config)
        self.config = config
        norm = layer_norm_class(kernels)
        self.embeddings = Embeddings(config, norm)
        self.encoder = Layers(config, norm)
        self.pooler: Pooler | None = Pooler(config) if with_pooler else None
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, 0.0, config.initializer_range)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                nn.init.zeros_(module.weight[module.padding_idx])

    def forward(
        self,
        piece_ids_T: Tensor,
        positions_T: Tensor,
        cu_seqlens_Q1: Tensor,
        max_seqlen: int,
        kept_N: Tensor | None = None,
    ) -> Tensor:
        """States of the last layer, [T, D]. `cu_seqlens_Q1` (int32) holds the borders of the sequences in T.

        `kept_N`: the tokens whose states are wanted, [N, D]; the last layer's feed-forward part skips all others.
        """
        n_wanted = (piece_ids_T if kept_N is None else kept_N).shape[0]
        device = piece_ids_T.device
        with self._autocast(device):
            dtype = product_dtype(self.embeddings.word_embeddings.weight)
            if self.fills_up or (device.type == "cpu" and dtype != torch.float32):
                piece_ids_T, positions_T, cu_seqlens_Q1, max_seqlen = _filled_up(
                    piece_ids_T, positions_T, cu_seqlens_Q1, max_seqlen
                )
                if kept_N is not None:
                    kept_N = filled(kept_N)
            x_TD = self.embeddings(piece_ids_T, positions_T)
            padding = None
            dropout_p = self.config.attention_probs_dropout_prob if self.training else 0.0
            head_size = self.config.hidden_size // self.config.num_attention_heads
            backend = choose_backend(device, dtype, head_size, dropout_p).name
            if backend == "grouped":
                padding = plan_padding(cu_seqlens_Q1, max_seqlen, x_TD.shape[0], self.config.num_attention_heads)
            return self.encoder(x_TD, Packing(cu_seqlens_Q1, max_seqlen, dtype, backend, padding), kept_N)[:n_wanted]

    def _autocast(self, device: torch.device) -> contextlib.AbstractContextManager[object]:
        if self.product_dtype is None:
            return contextlib.nullcontext()
        return autocast(device, self.product_dtype)


def rounded_up(count: int) -> int:
    """The next of 64, 72, 80, ... 128, 144, ... 256, 288, ...: eight numbers up to each power of two."""
    step = (1 << max(count - 1, FEWEST_TOKENS).bit_length() - 1) // SIZES_PER_DOUBLING
    return max(-(-count // step) * step, FEWEST_TOKENS)


def filled(index_N: Tensor) -> Tensor:
    """An index with further zeros behind it, so that its length is a rounded one."""
    n_filler = rounded_up(index_N.shape[0]) - index_N.shape[0]
    return F.pad(index_N, (0, n_filler)) if n_filler else index_N


def _filled_up(
    piece_ids_T: Tensor, positions_T: Tensor, cu_seqlens_Q1: Tensor, max_seqlen: int
) -> tuple[Tensor, Tensor, Tensor, int]:
    """The same with further sequences, which nothing looks at, so that the number of tokens is a rounded one.

    They are as many for all batches of as many sequences, and about as long as those are, so that attention costs no
    more for them than for others.
    """
    n_sequences = -(-(cu_seqlens_Q1.shape[0] - 1) // SIZES_PER_DOUBLING)
    n_tokens = piece_ids_T.shape[0]
    n_filler = rounded_up(n_tokens + n_sequences) - n_tokens  # at least one for each
    ends = torch.arange(1, n_sequences + 1, device=cu_seqlens_Q1.device) * n_filler // n_sequences + n_tokens
    return (
        F.pad(piece_ids_T, (0, n_filler)),
        F.pad(positions_T, (0, n_filler)),
        torch.cat([cu_seqlens_Q1, ends.to(cu_seqlens_Q1.dtype)]),
        max(max_seqlen, -(-n_filler // n_sequences)),
    )
