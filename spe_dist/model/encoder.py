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

from spe_dist.data.batches.dropout_keys import DropoutKeys
from spe_dist.errors import ConfigError
from spe_dist.model.attention import PaddingPlan, attend, borders_by_place, choose_backend, plan_padding, row_keys
from spe_dist.model.devices import autocast, product_dtype
from spe_dist.model.dropout import Dropout, combine, token_keys
from spe_dist.model.kernels import layer_norm_class
from spe_dist.model.start.assembly import kept_by, whole

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
        self,
        cu_seqlens_Q1: Tensor,
        max_seqlen: int,
        dtype: torch.dtype,
        backend: str,
        padding: PaddingPlan | None,
        keys_T: Tensor | None = None,
        keys_R: Tensor | None = None,
    ) -> None:
        """`keys_T`, `keys_R`: of dropout, by token and by row of the padding; of all layers [L + 1, .]."""
        self.cu_seqlens_Q1, self.max_seqlen, self.dtype = cu_seqlens_Q1, max_seqlen, dtype
        self.backend, self.padding = backend, padding
        self.keys_T, self.keys_R = keys_T, keys_R

    def of_layer(self, number: int) -> Packing:
        """The same with the keys of layer 0, 1, ...; those of the embeddings come first."""
        if self.keys_T is None:
            return self
        keys_R = None if self.keys_R is None else self.keys_R[number + 1]
        rest = self.cu_seqlens_Q1, self.max_seqlen, self.dtype, self.backend, self.padding
        return Packing(*rest, self.keys_T[number + 1], keys_R)


def check_config(config: BertConfig) -> None:
    """ConfigError for what this encoder does not compute."""
    values = config.to_dict()
    kind = values.get("model_type") or "bert"
    if kind != "bert":
        raise ConfigError(f"the encoder is of model_type {kind!r:.80}, supported is 'bert'; choose a BERT checkpoint")
    positions = values.get("position_embedding_type") or "absolute"
    if positions != "absolute":
        raise ConfigError(
            f"the encoder has position_embedding_type {positions!r:.80}, supported is 'absolute'; choose another"
        )
    if values.get("is_decoder"):
        raise ConfigError("the encoder has is_decoder=true, it would not see to its right; choose another checkpoint")
    if config.hidden_size % config.num_attention_heads:
        raise ConfigError(
            f"hidden_size={config.hidden_size} is not divisible by attention_heads={config.num_attention_heads}; "
            "choose a number of heads that divides it"
        )
    if isinstance(config.hidden_act, str) and config.hidden_act not in ACT2FN:
        raise ConfigError(f"hidden_act {config.hidden_act!r:.80} is unknown to transformers; known: {sorted(ACT2FN)}")


class Embeddings(nn.Module):
    """Word, position and first token type embeddings added up, [T, D], with LayerNorm and dropout."""

    def __init__(self, config: BertConfig, norm: type[nn.Module]):
        super().__init__()
        pad = config.pad_token_id
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=pad)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = norm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, piece_ids_T: Tensor, positions_T: Tensor, keys_T: Tensor | None = None) -> Tensor:
        first_type_1D = self.token_type_embeddings(torch.zeros(1, dtype=torch.int64, device=piece_ids_T.device))
        x_TD = self.word_embeddings(piece_ids_T) + first_type_1D + self.position_embeddings(positions_T)
        return self.dropout(self.LayerNorm(x_TD), keys_T)


class SelfAttention(nn.Module):
    """Attention inside each sequence, [T, D], before its output layer."""

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
            packing.keys_R,
        ).flatten(1)


class ResidualOutput(nn.Module):
    """Linear, dropout, residual and LayerNorm that end both halves of a layer."""

    def __init__(self, input_size: int, config: BertConfig, norm: type[nn.Module], site: int):
        super().__init__()
        self.dense = nn.Linear(input_size, config.hidden_size)
        self.LayerNorm = norm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob, site)

    def forward(self, x: Tensor, residual_TD: Tensor, keys_T: Tensor | None = None) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(x), keys_T) + residual_TD)


class AttentionBlock(nn.Module):
    """The first half of a layer; of `kept_N` tokens alone, [N, D], where it is given."""

    def __init__(self, config: BertConfig, norm: type[nn.Module]):
        super().__init__()
        self.self = SelfAttention(config)
        self.output = ResidualOutput(config.hidden_size, config, norm, site=0)

    def forward(
        self, x_TD: Tensor, packing: Packing, kept_N: Tensor | None = None, keys_T: Tensor | None = None
    ) -> Tensor:
        attended_TD = self.self(x_TD, packing)
        if kept_N is not None:
            attended_TD, x_TD = attended_TD.index_select(0, kept_N), x_TD.index_select(0, kept_N)
        return self.output(attended_TD, x_TD, keys_T)


class Intermediate(nn.Module):
    """The widening linear map of a layer with its activation."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        known = config.hidden_act if not isinstance(config.hidden_act, str) else ACT2FN[config.hidden_act]
        self.activation = F.gelu if config.hidden_act == "gelu" else known

    def forward(self, x_TD: Tensor) -> Tensor:
        return self.activation(self.dense(x_TD))


class Layer(nn.Module):
    """A layer of BERT, [T, D]; of `kept_N` tokens alone, [N, D], where it is given."""

    def __init__(self, config: BertConfig, norm: type[nn.Module]):
        super().__init__()
        self.attention = AttentionBlock(config, norm)
        self.intermediate = Intermediate(config)
        self.output = ResidualOutput(config.intermediate_size, config, norm, site=1)

    def forward(self, x_TD: Tensor, packing: Packing, kept_N: Tensor | None = None) -> Tensor:
        keys_T = packing.keys_T
        if kept_N is not None and keys_T is not None:
            keys_T = keys_T.index_select(0, kept_N)
        x_TD = self.attention(x_TD, packing, kept_N, keys_T)
        return self.output(self.intermediate(x_TD), x_TD, keys_T)


class Layers(nn.Module):
    """All layers; the last one for `kept_N` tokens alone, where it is given."""

    recompute: bool = False
    """Activation checkpointing: of each layer only the input is kept for the backward pass, which runs it again."""

    def __init__(self, config: BertConfig, norm: type[nn.Module]):
        super().__init__()
        self.layer = nn.ModuleList(Layer(config, norm) for _ in range(config.num_hidden_layers))

    def forward(self, x_TD: Tensor, packing: Packing, kept_N: Tensor | None = None) -> Tensor:
        last = len(self.layer) - 1
        recompute = self.recompute and torch.is_grad_enabled()
        for number, layer in enumerate(self.layer):
            inputs = (x_TD, packing.of_layer(number), kept_N if number == last else None)
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
        with kept_by(None):  # small, and saved as it is where nothing trains it
            self.pooler: Pooler | None = Pooler(config) if with_pooler else None
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                with whole(module):
                    self._draw(module)

    def _draw(self, module: nn.Linear | nn.Embedding) -> None:
        nn.init.normal_(module.weight, 0.0, self.config.initializer_range)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        elif module.padding_idx is not None:
            nn.init.zeros_(module.weight[module.padding_idx])

    def forward(
        self,
        piece_ids_T: Tensor,
        positions_T: Tensor,
        cu_seqlens_Q1: Tensor,
        max_seqlen: int,
        kept_N: Tensor | None = None,
        dropout_keys: DropoutKeys | None = None,
    ) -> Tensor:
        """States of the last layer, [T, D]. `cu_seqlens_Q1` (int32) holds the borders of the sequences in T.

        `kept_N`: the tokens whose states are wanted, [N, D]; the last layer's feed-forward part skips all others.
        `dropout_keys`: what dropout is drawn from, in place of torch's generator.
        """
        n_wanted = (piece_ids_T if kept_N is None else kept_N).shape[0]
        device = piece_ids_T.device
        with self._autocast(device):
            dtype = product_dtype(self.embeddings.word_embeddings.weight, device)
            if self.fills_up or (device.type == "cpu" and dtype != torch.float32):
                piece_ids_T, positions_T, cu_seqlens_Q1, max_seqlen = _filled_up(
                    piece_ids_T, positions_T, cu_seqlens_Q1, max_seqlen
                )
                if kept_N is not None:
                    kept_N = filled(kept_N)
            dropout_p = self.config.attention_probs_dropout_prob if self.training else 0.0
            head_size = self.config.hidden_size // self.config.num_attention_heads
            backend = choose_backend(device, dtype, head_size, dropout_p).name
            padding = None
            if backend == "grouped":
                n_tokens = piece_ids_T.shape[0]
                padding = plan_padding(cu_seqlens_Q1, max_seqlen, n_tokens, self.config.num_attention_heads)
            packing = Packing(cu_seqlens_Q1, max_seqlen, dtype, backend, padding)
            if dropout_keys is not None and self.training:
                packing = _keyed(packing, dropout_keys, positions_T, self.config)
            keys_T = None if packing.keys_T is None else packing.keys_T[0]
            x_TD = self.embeddings(piece_ids_T, positions_T, keys_T)
            return self.encoder(x_TD, packing, kept_N)[:n_wanted]

    def _autocast(self, device: torch.device) -> contextlib.AbstractContextManager[object]:
        if self.product_dtype is None:
            return contextlib.nullcontext()
        return autocast(device, self.product_dtype)


def _keyed(packing: Packing, keys: DropoutKeys, positions_T: Tensor, config: BertConfig) -> Packing:
    """The packing with keys of dropout. Sequences that only fill up stand behind all places, whose number is fixed."""
    cu_seqlens_Q1 = packing.cu_seqlens_Q1
    n_filler = cu_seqlens_Q1.shape[0] - 1 - keys.key_Q.shape[0]
    key_Q = F.pad(keys.key_Q, (0, n_filler)) if n_filler else keys.key_Q
    keys_T = token_keys(key_Q, cu_seqlens_Q1, positions_T)
    keys_R = None if packing.padding is None else row_keys(keys_T, packing.padding, config.num_attention_heads)
    layer_L1 = torch.arange(config.num_hidden_layers + 1, device=key_Q.device)[:, None]
    keys_LT, keys_LR = (None if keys is None else combine(keys, layer_L1) for keys in (keys_T, keys_R))
    if packing.backend == "flash":
        filler_places = torch.arange(keys.places, keys.places + n_filler, device=key_Q.device)
        places = keys.places + _fillers_of(keys.places) if n_filler else keys.places
        cu_seqlens_Q1 = borders_by_place(cu_seqlens_Q1, torch.cat([keys.place_Q, filler_places]), places)
    rest = packing.max_seqlen, packing.dtype, packing.backend, packing.padding
    return Packing(cu_seqlens_Q1, *rest, keys_LT, keys_LR)


def rounded_up(count: int) -> int:
    """The next of 64, 72, 80, ... 128, 144, ... 256, 288, ...: eight numbers up to each power of two."""
    step = (1 << max(count - 1, FEWEST_TOKENS).bit_length() - 1) // SIZES_PER_DOUBLING
    return max(-(-count // step) * step, FEWEST_TOKENS)


def filled(index_N: Tensor) -> Tensor:
    """An index with further zeros behind it, so that its length is a rounded one."""
    n_filler = rounded_up(index_N.shape[0]) - index_N.shape[0]
    return F.pad(index_N, (0, n_filler)) if n_filler else index_N


def _fillers_of(n_sequences: int) -> int:
    return -(-n_sequences // SIZES_PER_DOUBLING)


def _filled_up(
    piece_ids_T: Tensor, positions_T: Tensor, cu_seqlens_Q1: Tensor, max_seqlen: int
) -> tuple[Tensor, Tensor, Tensor, int]:
    """The same with further sequences, which nothing looks at, so that the number of tokens is a rounded one.

    They are as many for all batches of as many sequences, and about as long as those are, so that attention costs no
    more for them than for others.
    """
    n_sequences = _fillers_of(cu_seqlens_Q1.shape[0] - 1)
    n_tokens = piece_ids_T.shape[0]
    n_filler = rounded_up(n_tokens + n_sequences) - n_tokens  # at least one for each
    ends = torch.arange(1, n_sequences + 1, device=cu_seqlens_Q1.device) * n_filler // n_sequences + n_tokens
    return (
        F.pad(piece_ids_T, (0, n_filler)),
        F.pad(positions_T, (0, n_filler)),
        torch.cat([cu_seqlens_Q1, ends.to(cu_seqlens_Q1.dtype)]),
        max(max_seqlen, -(-n_filler // n_sequences)),
    )
