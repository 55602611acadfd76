"""What the predecessor's pre-training network computes, restated plainly: one sentence, one span, one window at a time.

Written from the published description and the facts of its released code; dropout is off throughout. The sentence
encoder is transformers' own BertModel on a padded batch, so that nothing of ours takes part.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BertConfig, BertModel

EPS = 1e-12
SUBJECT_POSITIONS = [-1, 0, 1, 2, 3]
OBJECT_POSITIONS = [-3, -2, -1, 0, 1]


@dataclass
class View:
    """One view of one sentence: pieces with [CLS] and [SEP], words by first piece, and what is asked of it."""

    pieces: list[int]
    first_pieces: list[int]  # index into pieces
    spans: list[tuple[int, int]]  # L, s1, M, s2, R in words, half-open
    masked: list[tuple[int, int, int]] = field(default_factory=list)  # first piece of the word, offset, label
    permuted: list[tuple[int, int]] = field(default_factory=list)  # index of one of the five spans, label


@dataclass
class Numbers:
    states: list[Tensor]  # [pieces, hidden] a sentence
    span_vectors: Tensor  # [sentences, 5, span]
    pair_vectors: Tensor  # [sentences, span]: what the attention gives
    queries: Tensor  # [sentences, hidden]: after both contrastive layers
    tbo_sum: float
    tbo_count: int
    spo_sum: float
    spo_count: int


@dataclass(frozen=True)
class Sizes:
    vocabulary: int = 90
    decoder_rows: int = 90
    hidden: int = 32
    layers: int = 2
    heads: int = 4
    intermediate: int = 56
    positions: int = 48
    kernels: tuple[int, ...] = (2, 3, 4)
    channels: int = 7
    span: int = 18
    attention: int = 20
    position_dims: int = 5
    offset_rows: int = 9
    offset_dims: int = 6


def bert_config(sizes: Sizes) -> BertConfig:
    return BertConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        intermediate_size=sizes.intermediate,
        max_position_embeddings=sizes.positions,
        attn_implementation="eager",
    )


def random_weights(sizes: Sizes, seed: int) -> dict[str, Tensor]:
    """Weights under the names of one of the predecessor's two encoders, no value left at its usual start."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, std: float = 0.15, mean: float = 0.0) -> Tensor:
        return torch.randn(*shape, generator=generator) * std + mean

    weights = {}
    for name, tensor in BertModel(bert_config(sizes)).state_dict().items():
        mean = 1.0 if name.endswith("LayerNorm.weight") else 0.0
        weights[f"bert_encoder.bert_model.{name}"] = normal(*tensor.shape, mean=mean)
    for index, width in enumerate(sizes.kernels):
        layer = f"entity_span_extractor.cnn_encoder.conv_layer_{index}"
        weights[f"{layer}.weight"] = normal(sizes.channels, sizes.hidden, width)
        weights[f"{layer}.bias"] = normal(sizes.channels)

    def dense_block(name: str, fan_in: int, fan_out: int) -> None:
        weights[f"{name}.linear.weight"] = normal(fan_out, fan_in, std=0.3)
        weights[f"{name}.linear.bias"] = normal(fan_out)
        weights[f"{name}.layer_norm.weight"] = normal(fan_out, mean=1.0)
        weights[f"{name}.layer_norm.bias"] = normal(fan_out)

    dense_block("ent2hidden", sizes.channels * len(sizes.kernels), sizes.span)
    dense_block("entity_span_mlp", sizes.span, sizes.span)
    weights["entity_span_decoder.hidden2label.weight"] = normal(6, sizes.span, std=0.5)
    weights["entity_span_decoder.hidden2label.bias"] = normal(6)
    weights["global_position_embedding.weight"] = normal(sizes.offset_rows, sizes.offset_dims, std=1.0)
    dense_block("masked_token_mlp", sizes.hidden + sizes.offset_dims, sizes.hidden)
    weights["masked_token_decoder.weight"] = normal(sizes.decoder_rows, sizes.hidden, std=0.3)
    weights["masked_token_decoder_bias"] = normal(sizes.decoder_rows)
    weights["position_embedding.weight"] = normal(7, sizes.position_dims, std=1.0)
    weights["attention_encoder.input_linear.weight"] = normal(sizes.attention, sizes.span, std=0.4)
    weights["attention_encoder.query_linear.weight"] = normal(sizes.attention, sizes.hidden, std=0.4)
    weights["attention_encoder.feature_linear.weight"] = normal(sizes.attention, 2 * sizes.position_dims, std=0.4)
    weights["attention_encoder.score_linear.weight"] = normal(1, sizes.attention, std=0.8)
    dense_block("mlp_head1", sizes.span, sizes.hidden)
    dense_block("mlp_head2", sizes.hidden, sizes.hidden)
    return weights


def random_checkpoint(sizes: Sizes, seed: int = 0) -> dict[str, Tensor]:
    """A whole state_dict: the trained encoder and its momentum copy."""
    query, key = random_weights(sizes, seed), random_weights(sizes, seed + 1)
    return {f"span_pair_encoder.{name}": tensor for name, tensor in query.items()} | {
        f"momentum_span_pair_encoder.{name}": tensor for name, tensor in key.items()
    }


def random_views(sizes: Sizes, seed: int, sentences: int = 6) -> list[View]:
    """Sentences of several lengths; empty outer and middle spans, 1-word spans, spans wider than every kernel."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=generator))

    views = []
    for number in range(sentences):
        lengths = [draw(0, 5), draw(1, 6), draw(0, 3), draw(1, 2), draw(0, 4)]
        if number == 0:
            lengths = [0, 1, 0, 2, 0]
        pieces, first_pieces, masked = [2], [], []
        for _ in range(sum(lengths)):
            first_pieces.append(len(pieces))
            n_pieces = draw(1, 3) if number % 3 else 1
            pieces += [draw(5, sizes.vocabulary - 1) for _ in range(n_pieces)]
            masked += [(first_pieces[-1], offset, draw(5, sizes.decoder_rows - 1)) for offset in range(1, n_pieces)]
        borders = [sum(lengths[:i]) for i in range(6)]
        spans = list(pairwise(borders))
        wide = [index for index, length in enumerate(lengths) if length >= 3][:2]
        views.append(View([*pieces, 3], first_pieces, spans, masked, [(index, draw(0, 5)) for index in wide]))
    return views


def layer_norm(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred * centred).mean(-1, keepdim=True)
    return weights[f"{name}.weight"] * (centred / (variance + EPS).sqrt()) + weights[f"{name}.bias"]


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def dense_block(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    """Linear, GELU, LayerNorm: the predecessor's repeated building block."""
    hidden = gelu(weights[f"{name}.linear.weight"] @ x + weights[f"{name}.linear.bias"])
    return layer_norm(hidden, weights, f"{name}.layer_norm")


def span_vector(words: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """One span's vector. The words are read from right to left between zeros, a kernel's width of them on each side."""
    features, index = [], 0
    while f"entity_span_extractor.cnn_encoder.conv_layer_{index}.weight" in weights:
        layer = f"entity_span_extractor.cnn_encoder.conv_layer_{index}"
        kernel, bias = weights[f"{layer}.weight"], weights[f"{layer}.bias"]
        width = kernel.shape[2]
        zeros = torch.zeros(width, kernel.shape[1], dtype=words.dtype)
        read = torch.cat([zeros, words.flip(0), zeros])
        windows = [
            gelu(bias + sum(kernel[:, :, i] @ read[start + i] for i in range(width)))
            for start in range(len(read) - width + 1)
        ]
        features.append(torch.stack(windows).amax(0))
        index += 1
    return dense_block(torch.cat(features), weights, "ent2hidden")


def pair_vector(five: Tensor, pooled: Tensor, weights: dict[str, Tensor]) -> Tensor:
    table = weights["position_embedding.weight"]
    scores = []
    for j in range(5):
        positions = torch.cat([table[SUBJECT_POSITIONS[j] + 3], table[OBJECT_POSITIONS[j] + 3]])
        inside = (
            weights["attention_encoder.input_linear.weight"] @ five[j]
            + weights["attention_encoder.query_linear.weight"] @ pooled
            + weights["attention_encoder.feature_linear.weight"] @ positions
        )
        scores.append(weights["attention_encoder.score_linear.weight"][0] @ gelu(inside))
    shares = torch.stack(scores).softmax(0)
    return sum(shares[j] * five[j] for j in range(5))


@torch.no_grad()
def forward(weights: dict[str, Tensor], sizes: Sizes, views: list[View]) -> Numbers:
    """The predecessor's numbers for one view of a batch of sentences. `weights`: names without the encoder's prefix."""
    bert = BertModel(bert_config(sizes)).eval()
    prefix = "bert_encoder.bert_model."
    bert.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    longest = max(len(view.pieces) for view in views)
    ids = torch.tensor([view.pieces + [0] * (longest - len(view.pieces)) for view in views])
    outputs = bert(input_ids=ids, token_type_ids=torch.zeros_like(ids), attention_mask=(ids != 0).long())

    states, vectors, pairs, queries, tbo, spo = [], [], [], [], [], []
    for view, all_states, pooled in zip(views, outputs.last_hidden_state, outputs.pooler_output, strict=True):
        states.append(all_states[: len(view.pieces)])
        words = all_states[view.first_pieces]
        five = torch.stack([span_vector(words[start:end], weights) for start, end in view.spans])
        pair = pair_vector(five, pooled, weights)
        vectors.append(five)
        pairs.append(pair)
        queries.append(dense_block(dense_block(pair, weights, "mlp_head1"), weights, "mlp_head2"))
        for first_piece, offset, label in view.masked:
            given = torch.cat([all_states[first_piece], weights["global_position_embedding.weight"][offset]])
            hidden = dense_block(given, weights, "masked_token_mlp")
            logits = weights["masked_token_decoder.weight"] @ hidden + weights["masked_token_decoder_bias"]
            tbo.append(F.cross_entropy(logits, torch.tensor(label)))
        for index, label in view.permuted:
            hidden = dense_block(five[index], weights, "entity_span_mlp")
            logits = weights["entity_span_decoder.hidden2label.weight"] @ hidden
            spo.append(F.cross_entropy(logits + weights["entity_span_decoder.hidden2label.bias"], torch.tensor(label)))
    return Numbers(
        states,
        torch.stack(vectors),
        torch.stack(pairs),
        torch.stack(queries),
        float(sum(tbo)),
        len(tbo),
        float(sum(spo)),
        len(spo),
    )
