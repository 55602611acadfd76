"""What the typing and the relation head may read beside the paper's vectors; each a setting, none by default (METHOD).

SpERT types a span by its maximum, an embedding of its width and [CLS], and classifies a pair by both entities, the
maximum over the words between them and both widths. PURE marks entities with their types before it relates them.

Legend of the shape suffixes: S spans, P pairs, Q sequences, H span size, D hidden size, X further features
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spe_dist.model.devices import send
from spe_dist.model.heads import initialize

WIDTHS = 11  # rows of the table of widths: 0 to 9 words, and 10 or more


@dataclass(frozen=True)
class Features:
    """Further inputs of the heads, by their names in the settings, and the size of an embedding among them."""

    typing: tuple[str, ...] = ()
    pair: tuple[str, ...] = ()
    size: int = 25


class SpanFeatures(nn.Module):
    """Span vectors with what else the typing head reads."""

    def __init__(self, features: Features, hidden_size: int) -> None:
        super().__init__()
        self.has_cls = "cls" in features.typing
        self.widths = nn.Embedding(WIDTHS, features.size) if "width" in features.typing else None
        self.size = (self.widths is not None) * features.size + self.has_cls * hidden_size
        self.apply(initialize)

    def forward(self, vectors_SH: Tensor, cls_QD: Tensor, width_S: Tensor, window_S: Tensor) -> Tensor:
        """[S, H + X]; `width_S`, in words, and `window_S`, the sequence of each span, are on the CPU."""
        if not self.size:
            return vectors_SH
        width_S, window_S = send([width_S.clamp(max=WIDTHS - 1), window_S], vectors_SH.device)
        parts = [vectors_SH]
        if self.widths is not None:
            parts.append(self.widths(width_S))
        if self.has_cls:
            parts.append(cls_QD.index_select(0, window_S))
        return torch.cat(parts, dim=1)


class PairFeatures(nn.Module):
    """Span pair vectors with what else the relation head reads."""

    def __init__(self, features: Features, span_size: int, entity_classes: int) -> None:
        super().__init__()
        names = features.pair
        # Columns of s1, M and s2 among the five spans L, s1, M, s2, R of a pair.
        self.columns = [1, 3] * ("entities" in names) + [2] * ("between" in names)
        self.types = nn.Embedding(entity_classes, features.size) if "types" in names else None
        self.widths = nn.Embedding(WIDTHS, features.size) if "widths" in names else None
        tables = (self.types is not None) + (self.widths is not None)
        self.size = len(self.columns) * span_size + 2 * tables * features.size
        self.apply(initialize)

    def forward(self, pairs_PH: Tensor, spans_XH: Tensor, row_PF: Tensor, class_P2: Tensor, width_P2: Tensor) -> Tensor:
        """[P, H + X].

        Args:
            pairs_PH: span pair vectors.
            spans_XH: vectors of spans.
            row_PF: int64, on their device: which of them are L, s1, M, s2, R of each pair.
            class_P2: int64, on the CPU: entity classes of both entities.
            width_P2: int64, on the CPU: their words.
        """
        if not self.size:
            return pairs_PH
        class_P2, width_P2 = send([class_P2, width_P2.clamp(max=WIDTHS - 1)], pairs_PH.device)
        parts = [pairs_PH, *(spans_XH.index_select(0, row_PF[:, column]) for column in self.columns)]
        parts += [self.types(class_P2).flatten(1)] if self.types is not None else []
        parts += [self.widths(width_P2).flatten(1)] if self.widths is not None else []
        return torch.cat(parts, dim=1)
