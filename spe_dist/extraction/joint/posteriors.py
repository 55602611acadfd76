"""How probable it is that a span is an entity: the share of all valid tag sequences in which it is one.

Each word has a distribution over its five tags, and only some sequences of tags are valid (see `tags`). What they give
together to a span, as a share of what all valid sequences of the sentence have, is the probability that the span is an
entity, given that the tags are valid (METHOD, Fine-tuning). One threshold on it means the same for short and long
names: where the words of a name agree, sequences that would part them are invalid and take nothing away. Spans that
overlap exclude each other, so the spans that hold a word have probabilities of 1 together at most.

Legend of the shape suffixes:
    G words of all sentences, B sentences, L words of the longest sentence, S spans
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from spe_dist.extraction.joint.tags import BEGIN, END, INSIDE, OUTSIDE, TAGS, UNIT


class SpanPosteriors:
    """Sums over all valid tag sequences of a batch, from which the probability of any span follows."""

    def __init__(self, log_probs_G5: Tensor, sentence_borders_B1: Tensor, longest: int) -> None:
        """`log_probs_G5`: of the tags, on the CPU; sentence b has words borders[b] .. borders[b + 1]."""
        scores_G5 = log_probs_G5.double().numpy()
        borders_B1 = sentence_borders_B1.numpy()
        lengths_B = np.diff(borders_B1)
        sentence_G = np.repeat(np.arange(len(lengths_B)), lengths_B)
        position_G = np.arange(len(sentence_G)) - borders_B1[sentence_G]
        # Padding is O for certain: it ends a sentence and leaves nothing within an entity.
        probs_L5B = np.zeros((max(longest, 1), len(TAGS), len(lengths_B)))
        probs_L5B[:, OUTSIDE] = 1
        probs_L5B[position_G, :, sentence_G] = np.exp(scores_G5)
        before_LB, total_B = _forward(probs_L5B)
        between_LB, within_LB = _backward(probs_L5B)
        self._scores_5G = scores_G5.T
        self._inside_G1 = np.concatenate([[0.0], np.cumsum(scores_G5[:, INSIDE])])
        self._before_G = before_LB[position_G, sentence_G] - total_B[sentence_G]
        self._between_G = between_LB[position_G, sentence_G]
        self._within_G = within_LB[position_G, sentence_G]

    def of(self, start_S: Tensor, end_S: Tensor) -> Tensor:
        """[S], float32: the probability that each span of words start .. end (in G, of one sentence) is an entity."""
        start, last = start_S.numpy(), end_S.numpy() - 1
        several = (
            self._scores_5G[BEGIN, start]
            + (self._inside_G1[last] - self._inside_G1[np.minimum(start + 1, last)])
            + self._scores_5G[END, last]
        )
        tags = np.where(start == last, self._scores_5G[UNIT, start], several)
        return _probability(self._before_G[start] + tags + self._between_G[last])

    def at_least(self, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
        """(start_S, end_S, probability_S) of all spans whose probability is at least `threshold`, which is above 0.

        Sorted by start and end. A word is in 1 / `threshold` of them at most.
        """
        assert threshold > 0
        least = np.log(threshold)
        begun_G = self._before_G + self._scores_5G[BEGIN]
        starts = np.flatnonzero(self._before_G + self._scores_5G[UNIT] + self._between_G >= least)
        found = [(starts, starts + 1)]
        active = np.flatnonzero(begun_G + self._within_G >= least)
        running, word = begun_G[active], active + 1
        while len(active):
            closed = running + self._scores_5G[END, word] + self._between_G[word] >= least
            found.append((active[closed], word[closed] + 1))
            running = running + self._scores_5G[INSIDE, word]
            goes_on = running + self._within_G[word] >= least
            active, running, word = active[goes_on], running[goes_on], word[goes_on] + 1
        start, end = (np.concatenate(parts) for parts in zip(*found, strict=True))
        order = np.lexsort((end, start))
        start_S, end_S = torch.from_numpy(start[order]), torch.from_numpy(end[order])
        return start_S, end_S, self.of(start_S, end_S)


def _forward(probs_L5B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(log of the sum over the tags before each word that end between entities [L, B], over all words [B])."""
    single_LB = probs_L5B[:, UNIT] + probs_L5B[:, OUTSIDE]
    between_B, within_B = np.ones(probs_L5B.shape[2]), np.zeros(probs_L5B.shape[2])
    shares_LB, scales_LB = np.empty_like(single_LB), np.empty_like(single_LB)
    for i, probs_5B in enumerate(probs_L5B):
        shares_LB[i] = between_B
        next_between_B = between_B * single_LB[i] + within_B * probs_5B[END]
        next_within_B = between_B * probs_5B[BEGIN] + within_B * probs_5B[INSIDE]
        scales_LB[i] = next_between_B + next_within_B
        between_B, within_B = next_between_B / scales_LB[i], next_within_B / scales_LB[i]
    sums_LB = np.cumsum(np.log(scales_LB), axis=0)
    before_LB = np.concatenate([np.zeros_like(sums_LB[:1]), sums_LB[:-1]])
    with np.errstate(divide="ignore"):
        return np.log(shares_LB) + before_LB, np.log(between_B) + sums_LB[-1]


def _backward(probs_L5B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logs of the sums over the tags behind each word [L, B]: where it ends between entities, and within one."""
    single_LB = probs_L5B[:, UNIT] + probs_L5B[:, OUTSIDE]
    between_B, within_B = np.ones(probs_L5B.shape[2]), np.zeros(probs_L5B.shape[2])
    betweens_LB, withins_LB, scales_LB = (np.empty_like(single_LB) for _ in range(3))
    for i in reversed(range(len(probs_L5B))):
        betweens_LB[i], withins_LB[i] = between_B, within_B
        next_between_B = single_LB[i] * between_B + probs_L5B[i, BEGIN] * within_B
        next_within_B = probs_L5B[i, END] * between_B + probs_L5B[i, INSIDE] * within_B
        scales_LB[i] = next_between_B + next_within_B
        between_B, within_B = next_between_B / scales_LB[i], next_within_B / scales_LB[i]
    sums_LB = np.cumsum(np.log(scales_LB)[::-1], axis=0)[::-1]
    behind_LB = np.concatenate([sums_LB[1:], np.zeros_like(sums_LB[:1])])
    with np.errstate(divide="ignore"):
        return np.log(betweens_LB) + behind_LB, np.log(withins_LB) + behind_LB


def _probability(logs: np.ndarray) -> Tensor:
    return torch.from_numpy(np.exp(np.minimum(logs, 0.0)).astype(np.float32))
