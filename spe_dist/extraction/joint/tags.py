"""BIEOU tags of words: from gold spans, and back from scores by the best valid path (METHOD, Fine-tuning).

B, I and E are the first, the inner and the last words of an entity of several words, U is one of a single word, O no
entity. Valid are the sequences that cut into O, U and B I* E.

Legend of the shape suffixes:
    G words of all sentences, B sentences, L words of the longest sentence, S spans
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

TAGS = ("B", "I", "E", "O", "U")
BEGIN, INSIDE, END, OUTSIDE, UNIT = range(len(TAGS))

Span = tuple[int, int]


def flat_spans(spans: Iterable[Span]) -> list[Span]:
    """Those of `spans` that tags represent together, in order: of spans that overlap, the longest, then the first."""
    kept: list[Span] = []
    for start, end in sorted(set(spans), key=lambda span: (span[0] - span[1], span[0])):
        if all(end <= first or start >= last for first, last in kept):
            kept.append((start, end))
    return sorted(kept)


def tags_of_spans(spans: Sequence[Span], n_words: int) -> np.ndarray:
    """int64 [n_words]; spans do not overlap and none is empty."""
    tags = np.full(n_words, OUTSIDE, dtype=np.int64)
    for start, end in spans:
        if end - start == 1:
            tags[start] = UNIT
        else:
            tags[start:end] = INSIDE
            tags[start], tags[end - 1] = BEGIN, END
    return tags


def best_tags(scores_G5: Tensor, sentence_borders_B1: Tensor, longest: int) -> Tensor:
    """[G]: the valid tags of the largest summed score in each sentence of words borders[b] .. borders[b + 1].

    A path is either between entities (after O, E, U) or within one (after B, I), so two scores a sentence are all that
    has to be kept; the loop is over the positions in a sentence, all sentences at once. Inputs are on the CPU: the loop
    is of many small operations, which NumPy starts fastest.
    """
    borders_B1 = sentence_borders_B1.numpy()
    lengths_B = np.diff(borders_B1)
    n_sentences = len(lengths_B)
    sentence_G = np.repeat(np.arange(n_sentences), lengths_B)
    position_G = np.arange(len(sentence_G)) - borders_B1[sentence_G]
    # Padding is O of score 0: it leaves "between" as it is, and forbids to stay within an entity.
    scores_5LB = np.full((len(TAGS), longest, n_sentences), -np.inf, dtype=np.float32)
    scores_5LB[OUTSIDE] = 0
    scores_5LB[:, position_G, sentence_G] = scores_G5.float().numpy().T
    is_unit_LB = scores_5LB[UNIT] > scores_5LB[OUTSIDE]
    single_LB = np.maximum(scores_5LB[UNIT], scores_5LB[OUTSIDE])
    ended_LB, began_LB = np.empty_like(is_unit_LB), np.empty_like(is_unit_LB)
    between_B = np.zeros(n_sentences, dtype=np.float32)
    within_B = np.full(n_sentences, -np.inf, dtype=np.float32)
    for i in range(longest):
        alone_B, closed_B = between_B + single_LB[i], within_B + scores_5LB[END, i]
        opened_B, stayed_B = between_B + scores_5LB[BEGIN, i], within_B + scores_5LB[INSIDE, i]
        np.greater(closed_B, alone_B, out=ended_LB[i])
        np.greater_equal(opened_B, stayed_B, out=began_LB[i])
        between_B, within_B = np.maximum(alone_B, closed_B), np.maximum(opened_B, stayed_B)
    tags_LB = _trace_back(ended_LB, began_LB, is_unit_LB)
    return torch.from_numpy(tags_LB[position_G, sentence_G])


def _trace_back(ended_LB: np.ndarray, began_LB: np.ndarray, is_unit_LB: np.ndarray) -> np.ndarray:
    within_LB, closed_LB = np.empty_like(is_unit_LB), np.empty_like(is_unit_LB)
    is_within_B = np.zeros(is_unit_LB.shape[1], dtype=bool)
    for i in reversed(range(len(is_unit_LB))):
        within_LB[i] = is_within_B
        np.greater(ended_LB[i], is_within_B, out=closed_LB[i])  # ended, and not within
        is_within_B = np.where(is_within_B, ~began_LB[i], closed_LB[i])
    tags_LB = np.where(is_unit_LB, UNIT, OUTSIDE)
    tags_LB[closed_LB] = END
    return np.where(within_LB, np.where(began_LB, BEGIN, INSIDE), tags_LB)


def spans_of_tags(tags_G: Tensor) -> tuple[Tensor, Tensor]:
    """(start_S, end_S) of the entities of valid tags, in order."""
    start_S = torch.nonzero((tags_G == BEGIN) | (tags_G == UNIT)).squeeze(1)
    end_S = torch.nonzero((tags_G == END) | (tags_G == UNIT)).squeeze(1) + 1
    return start_S, end_S
