"""The block that all heads are made of, and the heads themselves (METHOD, Network and token boundary objective).

The predecessor's order of operations is Linear, GELU, LayerNorm (eps 1e-12), Dropout; weights start as
normal(0, 0.02), biases as 0. Its token boundary MLP is as wide as the encoder, its decoders have biases, none is tied.

Legend of the shape suffixes:
    Q sequences, M token boundary targets, P permuted spans, D hidden size, H span size, C contrastive size,
    V vocabulary
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spe_dist.model.dropout import Dropout
from spe_dist.model.kernels import layer_norm_class
from spe_dist.model.start.assembly import whole

INITIAL_STD = 0.02
LAYER_NORM_EPS = 1e-12
PERMUTATIONS = 6  # orders of first word, middle words, last word


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
    ):
        super().__init__()
        self.offset_embedding = nn.Embedding(offset_rows, offset_size)
        self.mlp = Mlp(hidden_size + offset_size, hidden_size, dropout, kernels)
        self.decoder = nn.Linear(hidden_size, vocab_size)
        initialize(self.offset_embedding)
        initialize(self.decoder)

    def forward(self, first_piece_states_MD: Tensor, offset_M: Tensor, keys_M: Tensor | None = None) -> Tensor:
        """Logits [M, V]; offsets past the table take its last row."""
        rows_M = offset_M.clamp(max=self.offset_embedding.num_embeddings - 1)
        return self.decoder(self.mlp(torch.cat([first_piece_states_MD, self.offset_embedding(rows_M)], dim=1), keys_M))


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
