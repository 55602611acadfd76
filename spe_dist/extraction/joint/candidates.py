"""Which spans are typed and which pairs are classified, as index arithmetic on whole batches (METHOD, Fine-tuning).

All of it runs on the CPU, wherever the network does: nearly every shape depends on what was found.

A span is (start, end) in G, words of the batch's sentences (see `batch`); it lies inside one sentence and is not
empty. Spans of a batch are sorted by (start, end), so those of a sentence stand together, in reading order.

Legend of the shape suffixes:
    S spans, P pairs, B sentences, Q windows, G words of the sentences, W words of the windows, E gold spans,
    R gold pairs, F = 5 spans L, s1, M, s2, R of a pair, U further readings of entities, V distinct contexts L, M, R
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from spe_dist.extraction.joint.batch import ExtractionBatch
from spe_dist.extraction.joint.windows import NO_CUT


@dataclass(frozen=True)
class Spans:
    """Distinct spans to be typed, sorted."""

    start_S: Tensor
    end_S: Tensor
    sentence_S: Tensor
    window_S: Tensor  # the window in which the span is read
    overlong: int = 0  # spans left out because no window holds them

    @property
    def count(self) -> int:
        return self.start_S.shape[0]


@dataclass(frozen=True)
class GoldSpans:
    """Where the gold stands among the typing candidates of a batch."""

    class_S: Tensor  # 0 where the span is no gold entity
    is_predicted_S: Tensor
    row_E: Tensor  # the candidate that is each gold span


@dataclass(frozen=True)
class Pairs:
    """Pairs of spans that stand one behind the other, each once, sorted."""

    first_P: Tensor  # index into S
    second_P: Tensor
    window_P: Tensor  # the window in which the pair is read
    overlapping: int  # pairs left out because their spans overlap
    apart: int  # pairs left out because no window holds both spans

    @property
    def count(self) -> int:
        return self.first_P.shape[0]


@dataclass(frozen=True)
class FiveSpans:
    """The spans into which pairs cut their windows, each once, beside the candidates."""

    entity_start_U: Tensor  # in W: entities in another window than they are typed in, behind an empty span
    entity_end_U: Tensor
    context_start_V: Tensor  # in W: all L, M and R; the empty one, which is always there, comes first
    context_end_V: Tensor
    row_PF: Tensor  # index into the candidates, followed by U and V


def best_window(batch: ExtractionBatch, sentence_S: Tensor, start_S: Tensor, end_S: Tensor) -> Tensor:
    """[S]: the window that holds words start..end (in G) farthest from a cut, -1 where none does."""
    first_window_S = batch.window_borders_B1[sentence_S]
    if batch.max_windows == 1:
        return first_window_S
    sentence_start_S, sentence_end_S = batch.sentence_borders_B1[sentence_S], batch.sentence_borders_B1[sentence_S + 1]
    widths_Q = batch.word_borders_Q1.diff()
    best_S, best_margin_S = torch.full_like(start_S, -1), torch.full_like(start_S, -1)
    for number in range(batch.max_windows):
        exists_S = first_window_S + number < batch.window_borders_B1[sentence_S + 1]
        window_S = torch.where(exists_S, first_window_S + number, first_window_S)
        low_S = batch.window_first_Q[window_S]
        high_S = low_S + widths_Q[window_S]
        left_S = torch.where(low_S == sentence_start_S, NO_CUT, start_S - low_S)
        right_S = torch.where(high_S == sentence_end_S, NO_CUT, high_S - end_S)
        held_S = exists_S & (start_S >= low_S) & (end_S <= high_S)
        margin_S = torch.where(held_S, torch.minimum(left_S, right_S), -1)
        is_better_S = margin_S > best_margin_S
        best_S = torch.where(is_better_S, window_S, best_S)
        best_margin_S = torch.where(is_better_S, margin_S, best_margin_S)
    return best_S


def predicted_spans(batch: ExtractionBatch, start_S: Tensor, end_S: Tensor) -> Spans:
    """Spans in order, such as those of decoded tags, without those that no window holds."""
    return _held(batch, start_S, end_S)


def _held(batch: ExtractionBatch, start_S: Tensor, end_S: Tensor) -> Spans:
    sentence_S = torch.searchsorted(batch.sentence_borders_B1, start_S, right=True) - 1
    spans = Spans(start_S, end_S, sentence_S, best_window(batch, sentence_S, start_S, end_S))
    if batch.max_windows == 1:
        return spans
    held = torch.nonzero(spans.window_S >= 0).squeeze(1)
    return Spans(start_S[held], end_S[held], sentence_S[held], spans.window_S[held], spans.count - held.shape[0])


def typing_candidates(batch: ExtractionBatch, predicted: Spans) -> tuple[Spans, GoldSpans]:
    """Predicted, gold and the batch's negative spans together, each once, with their gold classes."""
    size = batch.n_words + 1
    negative = _held(batch, batch.negative_start_N, batch.negative_end_N)
    keys = torch.cat([predicted.start_S, batch.entity_start_E, negative.start_S]) * size
    keys = keys + torch.cat([predicted.end_S, batch.entity_end_E, negative.end_S])
    distinct_S, row = torch.unique(keys, return_inverse=True)
    predicted_row, row_E, _ = row.split([predicted.count, batch.entity_start_E.shape[0], negative.count])
    class_S = torch.zeros_like(distinct_S)
    class_S[row_E] = batch.entity_class_E
    is_predicted_S = torch.zeros_like(distinct_S, dtype=torch.bool)
    is_predicted_S[predicted_row] = True
    spans = _held(batch, distinct_S // size, distinct_S % size)
    assert spans.count == distinct_S.shape[0], "a gold span that no window holds"
    return spans, GoldSpans(class_S, is_predicted_S, row_E)


def given_classes(batch: ExtractionBatch, spans: Spans) -> Tensor:
    """[S]: the gold classes of spans that are all gold, 0 for one that is no entity."""
    size = batch.n_words + 1
    keys_E = batch.entity_start_E * size + batch.entity_end_E
    return batch.entity_class_E[torch.searchsorted(keys_E, spans.start_S * size + spans.end_S)]


def all_pairs(batch: ExtractionBatch, spans: Spans, is_entity_S: Tensor) -> Pairs:
    """Every two entities of a sentence, by position.

    Those that are farther apart than any window is wide are counted only: in a sentence of thousands of words nearly
    all are, and their number grows with its square.
    """
    chosen_N = torch.nonzero(is_entity_S).squeeze(1)
    sentence_N = spans.sentence_S[chosen_N]
    ends_B = torch.cumsum(torch.bincount(sentence_N, minlength=batch.n_examples), 0)
    number_N = torch.arange(chosen_N.shape[0])
    partners_N = ends_B[sentence_N] - number_N - 1
    far_pairs = 0
    if batch.max_windows > 1:
        start_N = spans.start_S[chosen_N]
        near_N = torch.searchsorted(start_N, start_N + batch.word_borders_Q1.diff().max()) - number_N - 1
        near_N = torch.minimum(partners_N, near_N)
        far_pairs = int((partners_N - near_N).sum())
        partners_N = near_N
    n_pairs = int(partners_N.sum())
    first_P = torch.repeat_interleave(number_N, partners_N, output_size=n_pairs)
    before_N = torch.cumsum(partners_N, 0) - partners_N
    second_P = first_P + 1 + torch.arange(n_pairs) - before_N[first_P]
    first_P, second_P = chosen_N[first_P], chosen_N[second_P]
    apart_P = torch.nonzero(spans.end_S[first_P] <= spans.start_S[second_P]).squeeze(1)
    pairs = _read_in_windows(batch, spans, first_P[apart_P], second_P[apart_P], n_pairs - apart_P.shape[0])
    return replace(pairs, apart=pairs.apart + far_pairs)


def _read_in_windows(
    batch: ExtractionBatch, spans: Spans, first_P: Tensor, second_P: Tensor, overlapping: int
) -> Pairs:
    window_P = best_window(batch, spans.sentence_S[first_P], spans.start_S[first_P], spans.end_S[second_P])
    if batch.max_windows == 1:
        return Pairs(first_P, second_P, window_P, overlapping, 0)
    held = torch.nonzero(window_P >= 0).squeeze(1)
    return Pairs(first_P[held], second_P[held], window_P[held], overlapping, window_P.shape[0] - held.shape[0])


def with_gold_pairs(batch: ExtractionBatch, spans: Spans, gold: GoldSpans, pairs: Pairs) -> tuple[Pairs, Tensor]:
    """The pairs and all gold pairs together, each once, and their gold classes, 0 for none."""
    gold_R = gold.row_E[batch.pair_first_R] * spans.count + gold.row_E[batch.pair_second_R]
    keys = torch.cat([pairs.first_P * spans.count + pairs.second_P, gold_R])
    distinct_P, row = torch.unique(keys, return_inverse=True)
    class_P = torch.zeros_like(distinct_P)
    class_P[row[pairs.count :]] = batch.pair_class_R
    size = max(spans.count, 1)
    joined = _read_in_windows(batch, spans, distinct_P // size, distinct_P % size, pairs.overlapping)
    assert joined.count == distinct_P.shape[0], "a gold pair that no window holds"
    return Pairs(joined.first_P, joined.second_P, joined.window_P, pairs.overlapping, pairs.apart), class_P


def in_windows(batch: ExtractionBatch, window_S: Tensor, start_S: Tensor, end_S: Tensor) -> tuple[Tensor, Tensor]:
    """(start, end) in W, inside the given windows, of spans in G."""
    shift_S = batch.word_borders_Q1[window_S] - batch.window_first_Q[window_S]
    return start_S + shift_S, end_S + shift_S


def cut_in_five(batch: ExtractionBatch, spans: Spans, pairs: Pairs) -> FiveSpans:
    """L, s1, M, s2, R of each pair in its window. All empty contexts are one; U and V are never without a span."""
    size = int(batch.first_piece_W.shape[0]) + 1
    typed_start_S, typed_end_S = in_windows(batch, spans.window_S, spans.start_S, spans.end_S)
    typed_S = typed_start_S * size + typed_end_S
    window_P = pairs.window_P
    a_P, b_P = in_windows(batch, window_P, spans.start_S[pairs.first_P], spans.end_S[pairs.first_P])
    c_P, d_P = in_windows(batch, window_P, spans.start_S[pairs.second_P], spans.end_S[pairs.second_P])
    low_P, high_P = batch.word_borders_Q1[window_P], batch.word_borders_Q1[window_P + 1]
    entity_P2 = torch.stack([a_P * size + b_P, c_P * size + d_P], dim=1)
    start_P3, end_P3 = torch.stack([low_P, b_P, d_P], dim=1), torch.stack([a_P, c_P, high_P], dim=1)
    context_P3 = torch.where(start_P3 < end_P3, start_P3 * size + end_P3, 0)
    empty_1 = typed_S.new_zeros(1)
    distinct_U = torch.unique(torch.cat([empty_1, entity_P2[~torch.isin(entity_P2, typed_S)]]))
    distinct_V = torch.unique(torch.cat([empty_1, context_P3.flatten()]))
    keys, order = torch.sort(torch.cat([typed_S, distinct_U]))
    s1_P, s2_P = order[torch.searchsorted(keys, entity_P2)].unbind(1)
    left_P, middle_P, right_P = (keys.shape[0] + torch.searchsorted(distinct_V, context_P3)).unbind(1)
    row_PF = torch.stack([left_P, s1_P, middle_P, s2_P, right_P], dim=1)
    return FiveSpans(distinct_U // size, distinct_U % size, distinct_V // size, distinct_V % size, row_PF)
