"""Which sentences are trained when, and on which entities: pure functions of the seed, the epoch and the sentence.

Epochs count from 0 here, sentences by their number in the training file, so that a sentence's draws do not depend on
batch, rank or share.

Legend of the shape suffixes: N training sentences, B sentences of a batch, X spans
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from spe_dist.utils import randomness
from spe_dist.utils.ragged import borders, ranges
from spe_dist.utils.randomness import Purpose

_EPOCHS_KEPT = 2


def choose_share(n_sentences: int, share: float, seed: int) -> np.ndarray:
    """Numbers of the sentences that a share of the training data holds, in file order.

    The first round(share x n) of one seeded order, so a smaller share lies inside a larger one.
    """
    wanted = round(share * n_sentences)
    order_N = _order(n_sentences, seed, 0, Purpose.TRAIN_SHARE)
    return np.sort(order_N[:wanted])


def count_steps(n_sentences: int, batch_sentences: int) -> int:
    """Steps of an epoch."""
    return math.ceil(n_sentences / batch_sentences)


@lru_cache(maxsize=_EPOCHS_KEPT)
def epoch_batches(n_sentences: int, batch_sentences: int, seed: int, epoch: int) -> list[np.ndarray]:
    """A seeded permutation of all sentences in batches of at most `batch_sentences`, equal but for one sentence.

    Equal batches, rather than a short last one, leave no rank without a sentence and give each step the same weight.
    """
    order_N = _order(n_sentences, seed, epoch, Purpose.SENTENCE_ORDER)
    return np.array_split(order_N, count_steps(n_sentences, batch_sentences))


def part_of_rank(batch_B: np.ndarray, rank: int, ranks: int) -> np.ndarray:
    """This rank's contiguous share of a batch."""
    return np.array_split(batch_B, ranks)[rank]


def gold_probability(epoch: int, gold_epochs: int, gold_decay: float) -> float:
    """P(gold) of scheduled sampling: 1 in epochs 0 .. gold_epochs - 1, then k / (k + exp((epoch - gold_epochs) / k)).

    k is gold_decay. So with the defaults the first five epochs are all gold and the sixth has P = 3 / 4.
    """
    if epoch < gold_epochs:
        return 1.0
    exponent = (epoch - gold_epochs) / gold_decay
    return gold_decay / (gold_decay + math.exp(min(exponent, 700.0)))


def draw_gold(sentences_B: np.ndarray, probability: float, seed: int, epoch: int) -> np.ndarray:
    """bool [B]: whether each sentence takes its gold entities for relation candidates in this epoch."""
    keys_B = randomness.keys(seed, epoch, sentences_B)
    return randomness.uniform(randomness.draws(keys_B, Purpose.GOLD_ENTITIES)) < probability


def draw_spans(
    words_B: np.ndarray, sentences_B: np.ndarray, per_sentence: int, widest: int, seed: int, epoch: int
) -> tuple[np.ndarray, np.ndarray]:
    """(starts, ends) [X] of spans of up to `widest` words, in the words of the batch, `words_B` a sentence.

    A sentence with no more than `per_sentence` such spans gives all of them, others as many draws, of which some may
    be equal. With width w the spans of n words are n - w + 1, counted by width and then by start.
    """
    widest_B = np.minimum(words_B, widest)
    spans_B = widest_B * words_B - widest_B * (widest_B - 1) // 2
    taken_B = np.minimum(spans_B, per_sentence)
    of_X = np.repeat(np.arange(len(words_B)), taken_B)
    number_X = ranges(taken_B)
    keys_B = randomness.keys(seed, epoch, sentences_B)
    drawn_X = randomness.below(randomness.draws(keys_B[of_X], Purpose.NEGATIVE_SPANS, number_X), spans_B[of_X])
    span_X = np.where(spans_B[of_X] > per_sentence, drawn_X, number_X)
    width_X = np.ones(len(of_X), dtype=np.int64)
    for width in range(1, widest):  # those behind all spans of this width are wider
        of_width_X = words_B[of_X] - width + 1
        behind_X = (width_X == width) & (span_X >= of_width_X)
        span_X, width_X = span_X - np.where(behind_X, of_width_X, 0), width_X + behind_X
    start_X = borders(words_B)[of_X] + span_X
    return start_X, start_X + width_X


def _order(n: int, seed: int, epoch: int, purpose: Purpose) -> np.ndarray:
    draws_N = randomness.draws(randomness.keys(seed, epoch, np.arange(n)), purpose)
    return np.argsort(draws_N, kind="stable")
