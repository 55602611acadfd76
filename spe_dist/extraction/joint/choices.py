"""What a prediction keeps: the most probable class, or all that has at least some probability (METHOD, Fine-tuning).

Without a threshold entities are the best valid tags' spans that are typed as one, and a pair has the most probable of
its classes, none among them. A threshold goes below and above that: entities are all spans whose best type has at least
that probability, of those that overlap the most probable one; a relation is the best type of a pair that has at least
that probability, even where none is more probable.

What one threshold keeps, a lower one keeps too. So a prediction with low thresholds holds those with all higher ones.

Legend of the shape suffixes:
    S spans, P pairs, G words of the sentences, Y entity classes, Z relation classes
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from spe_dist.extraction.joint.batch import ExtractionBatch
from spe_dist.extraction.joint.candidates import Spans, predicted_spans
from spe_dist.extraction.joint.posteriors import SpanPosteriors
from spe_dist.extraction.joint.tags import best_tags, spans_of_tags


def candidate_spans(batch: ExtractionBatch, log_probs_G5: Tensor, threshold: float | None) -> tuple[Spans, Tensor]:
    """The spans to be typed, and the probability [S] that each is an entity of any type; all on the CPU."""
    posteriors = SpanPosteriors(log_probs_G5, batch.sentence_borders_B1, batch.max_words)
    if threshold is None:
        tags_G = best_tags(log_probs_G5, batch.sentence_borders_B1, batch.max_words)
        spans = predicted_spans(batch, *spans_of_tags(tags_G))
    else:
        start_S, end_S, _ = posteriors.at_least(threshold)
        spans = predicted_spans(batch, start_S, end_S)
    return spans, posteriors.of(spans.start_S, spans.end_S)


def choose_entities(
    spans: Spans, span_probability_S: Tensor, type_probability_SY: Tensor, threshold: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """(whether it is an entity [S], class [S], probability [S]) of typed spans, on the CPU."""
    if threshold is None:
        type_probability_S, class_S = type_probability_SY.max(dim=1)
        return class_S > 0, class_S, type_probability_S * span_probability_S
    type_probability_S, class_S = type_probability_SY[:, 1:].max(dim=1)
    probability_S = type_probability_S * span_probability_S
    return _flat(spans, probability_S, threshold), class_S + 1, probability_S


def _flat(spans: Spans, probability_S: Tensor, threshold: float) -> Tensor:
    """[S]: which spans to keep, the most probable first, none that overlaps one that is kept."""
    probabilities = probability_S.numpy()
    start_S, end_S = spans.start_S.tolist(), spans.end_S.tolist()
    taken_G = np.zeros(max(end_S, default=0), dtype=bool)
    kept_S = torch.zeros(spans.count, dtype=torch.bool)
    order = np.argsort(-probabilities, kind="stable")
    for row in order[probabilities[order] >= threshold].tolist():
        words = slice(start_S[row], end_S[row])
        if not taken_G[words].any():
            taken_G[words] = True
            kept_S[row] = True
    return kept_S


def choose_relations(probability_PZ: Tensor, threshold: float | None) -> tuple[Tensor, Tensor]:
    """(class [P], 0 where there is no relation; probability [P]) of classified pairs, on their device."""
    if threshold is None or probability_PZ.shape[1] == 1:
        probability_P, class_P = probability_PZ.max(dim=1)
        return class_P, probability_P
    probability_P, class_P = probability_PZ[:, 1:].max(dim=1)
    return torch.where(probability_P >= threshold, class_P + 1, 0), probability_P
