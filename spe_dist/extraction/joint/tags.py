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
    has to be kept; the loop is over the positions in a sentence, all sentences at once.
    """
    scores_G5 = scores_G5.float()
    lengths_B = sentence_borders_B1.diff()
    n_sentences, device = lengths_B.shape[0], scores_G5.device
    sentence_G = torch.repeat_interleave(
        torch.arange(n_sentences, device=device), lengths_B, output_size=scores_G5.shape[0]
    )
    position_G = torch.arange(scores_G5.shape[0], device=device) - sentence_borders_B1[sentence_G]
    # Padding is O of score 0: it leaves "between" as it is, and forbids to stay within an entity.
    scores_LB5 = scores_G5.new_full((longest, n_sentences, len(TAGS)), -torch.inf)
    scores_LB5[:, :, OUTSIDE] = 0
    scores_LB5[position_G, sentence_G] = scores_G5
    single_LB, single_tag_LB = scores_LB5[:, :, [OUTSIDE, UNIT]].max(dim=2)
    begin_LB, inside_LB, end_LB = (scores_LB5[:, :, tag].contiguous() for tag in (BEGIN, INSIDE, END))
    between_B = scores_G5.new_zeros(n_sentences)
    within_B = scores_G5.new_full((n_sentences,), -torch.inf)
    ended, began = [], []
    for single_B, begin_B, inside_B, end_B in zip(single_LB, begin_LB, inside_LB, end_LB, strict=True):
        alone_B, closed_B = between_B + single_B, within_B + end_B
        opened_B, stayed_B = between_B + begin_B, within_B + inside_B
        ended.append(closed_B > alone_B)
        began.append(opened_B >= stayed_B)
        between_B, within_B = torch.maximum(alone_B, closed_B), torch.maximum(opened_B, stayed_B)
    tags_LB = _trace_back(ended, began, single_tag_LB)
    return tags_LB[position_G, sentence_G]


def _trace_back(ended: Sequence[Tensor], began: Sequence[Tensor], single_tag_LB: Tensor) -> Tensor:
    is_within_B = torch.zeros(single_tag_LB.shape[1], dtype=torch.bool, device=single_tag_LB.device)
    within, closed = [], []
    for ended_B, began_B in zip(reversed(ended), reversed(began), strict=True):
        closed_B = ended_B & ~is_within_B
        within.append(is_within_B)
        closed.append(closed_B)
        is_within_B = torch.where(is_within_B, ~began_B, closed_B)
    if not within:
        return single_tag_LB
    within_LB, closed_LB = torch.stack(within[::-1]), torch.stack(closed[::-1])
    tags_LB = torch.where(single_tag_LB == 0, OUTSIDE, UNIT)
    tags_LB = torch.where(closed_LB, END, tags_LB)
    return torch.where(within_LB, torch.where(torch.stack(list(began)), BEGIN, INSIDE), tags_LB)


def spans_of_tags(tags_G: Tensor) -> tuple[Tensor, Tensor]:
    """(start_S, end_S) of the entities of valid tags, in order."""
    start_S = torch.nonzero((tags_G == BEGIN) | (tags_G == UNIT)).squeeze(1)
    end_S = torch.nonzero((tags_G == END) | (tags_G == UNIT)).squeeze(1) + 1
    return start_S, end_S


def span_scores(scores_G5: Tensor, tags_G: Tensor, start_S: Tensor, end_S: Tensor) -> Tensor:
    """[S]: sum of the chosen tags' scores over the words of each span."""
    chosen_G = scores_G5.double().gather(1, tags_G[:, None]).squeeze(1)
    sums_G1 = torch.cat([chosen_G.new_zeros(1), torch.cumsum(chosen_G, 0)])
    return (sums_G1[end_S] - sums_G1[start_S]).float()
