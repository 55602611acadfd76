"""What is done to a sentence before the model sees it (METHOD, one pre-training example), for many sentences at once.

Two disjoint spans are drawn, some spans' words are reordered (SPO), words are chosen as token boundary targets (TBO).
Every decision is a pure function of (seed, epoch, sentence id), so it does not depend on the other sentences of the
batch. The result keeps all decisions as arrays; `packing.pack` makes views of them, `inspect` prints them.

With `permutations` = n_p > 1 a sentence has n_p copies: copy 0 keeps the true order (label 0) and serves all
objectives, the others have distinct other orders and serve the span permutation objective only.

Legend of the shape suffixes:
    N sentences, C copies (n_p), R = C*N rows (row = copy*N + sentence), T pieces, W words of the N sentences
    U = C*T pieces, V = C*W words of all rows; a suffix 1 is one more, for borders
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np

from spe_dist.config.pretraining import CorruptionConfig
from spe_dist.data.batches.packed import SPANS
from spe_dist.data.shards.reader import SentenceBatch
from spe_dist.errors import ConfigError, DataError
from spe_dist.utils import randomness
from spe_dist.utils.ragged import borders, exclusive_cumsum, ranges
from spe_dist.utils.randomness import Purpose

# Order `label` puts the parts (0 first word, 1 middle words, 2 last word) in the sequence ORDERS[label]; 0 = unchanged:
# 1 = (first, last, middle), 2 = (middle, first, last), 3 = (middle, last, first), 4 = (last, first, middle),
# 5 = (last, middle, first).
ORDERS = np.array(list(itertools.permutations(range(3))))


@dataclass(frozen=True)
class Corrupted:
    """N sentences with everything that was decided about them."""

    sentence_ids_N: np.ndarray
    text_ids_N: np.ndarray  # equal for sentences of equal pieces
    span_words_N5: np.ndarray  # words in L, s1, M, s2, R: a partition of the sentence; widths a, b in columns 1 and 3
    orders_CN5: np.ndarray  # label of the order applied to each span, -1 where the span is not permuted
    source_word_V: np.ndarray  # the original word (index into W) that stands at each place of a row
    piece_ids_U: np.ndarray  # the rows' pieces after the permutation, nothing masked
    first_piece_V1: np.ndarray  # index into U of the first piece of each word of a row; last: U
    word_borders_R1: np.ndarray  # borders of the rows in V
    tbo_words_W: np.ndarray  # bool: words of copy 0, after the permutation, whose pieces but the first are targets

    @property
    def n_sentences(self) -> int:
        return len(self.sentence_ids_N)

    @property
    def copies(self) -> int:
        return len(self.orders_CN5)


def check_corruption(config: CorruptionConfig) -> None:
    """Check the settings.

    Raises:
        ConfigError: one is out of range.
    """
    limits = {
        "span_width_p": (0 < config.span_width_p <= 1, "choose a value over 0 and at most 1"),
        "max_span_words": (config.max_span_words >= 1, "choose at least 1"),
        "view_masks": (config.view_masks in ("each", "one"), "choose 'each' or 'one'"),
        "permuted_spans": (0 <= config.permuted_spans <= SPANS, f"a sentence has {SPANS} spans; choose 0 to {SPANS}"),
        "min_permuted_words": (config.min_permuted_words >= 3, "a span has a first, middle and last word; choose >= 3"),
        "permutations": (1 <= config.permutations <= len(ORDERS), "three parts have 6 orders; choose 1 to 6"),
        "tbo_fraction": (0 <= config.tbo_fraction <= 1, "choose a value from 0 to 1"),
        "max_tbo_pieces": (config.max_tbo_pieces >= 0, "choose at least 0"),
        "mlm_fraction": (0 <= config.mlm_fraction <= 1, "choose a value from 0 to 1"),
    }
    for name, (good, remedy) in limits.items():
        if not good:
            raise ConfigError(f"{name}={getattr(config, name)!r} is out of range: {remedy}")


def corrupt(
    sentences: SentenceBatch,
    sentence_ids_N: np.ndarray,
    epochs_N: np.ndarray | int,
    seed: int,
    config: CorruptionConfig,
    span_words_N5: np.ndarray | None = None,
) -> Corrupted:
    """Draws spans, permutations and token boundary targets of N sentences.

    `span_words_N5`: words in L, s1, M, s2, R of each sentence, where they are not to be drawn (the evaluation gives
    sentences of equal length one layout).

    Raises:
        DataError: a sentence has fewer than 3 words, so no two spans with something left over.
    """
    words_N = np.diff(sentences.word_borders_N1)
    if len(words_N) and words_N.min() < 3:
        worst = int(words_N.argmin())
        raise DataError(
            f"sentence {sentence_ids_N[worst]} has {words_N[worst]} words, at least 3 are needed; make the shards again"
        )
    keys_N = randomness.keys(seed, epochs_N, sentence_ids_N)
    if span_words_N5 is None:
        span_words_N5 = draw_spans(words_N, keys_N, config)
    orders_CN5 = draw_orders(span_words_N5, keys_N, config)
    source_word_V = permute_words(span_words_N5, orders_CN5, sentences.word_borders_N1)

    n_pieces = len(sentences.piece_ids_T)
    word_pieces_W = np.diff(sentences.first_piece_W, append=n_pieces)
    word_pieces_V = word_pieces_W[source_word_V]
    first_piece_V1 = borders(word_pieces_V)
    shift_V = sentences.first_piece_W[source_word_V] - first_piece_V1[:-1]
    piece_ids_U = sentences.piece_ids_T[np.repeat(shift_V, word_pieces_V) + np.arange(first_piece_V1[-1])]

    budgets_N = tbo_budgets(np.diff(sentences.piece_borders_N1), config)
    costs_W = word_pieces_V[: len(word_pieces_W)] - 1
    tbo_words_W = take_words(costs_W, words_N, budgets_N, keys_N, Purpose.TBO_WORDS)
    copies = len(orders_CN5)
    return Corrupted(
        sentence_ids_N=sentence_ids_N,
        text_ids_N=text_ids(sentences.piece_ids_T, sentences.piece_borders_N1),
        span_words_N5=span_words_N5,
        orders_CN5=orders_CN5,
        source_word_V=source_word_V,
        piece_ids_U=piece_ids_U,
        first_piece_V1=first_piece_V1,
        word_borders_R1=sentences.word_borders_N1 if copies == 1 else borders(np.tile(words_N, copies)),
        tbo_words_W=tbo_words_W,
    )


def text_ids(piece_ids_T: np.ndarray, piece_borders_N1: np.ndarray) -> np.ndarray:
    """int64 [N]: a number for each sentence that equal sentences have in common, whatever their ids; 62-bit hashes.

    They are 2**62 or more, so that none is the id of a sentence.
    """
    positions_T = ranges(np.diff(piece_borders_N1))
    placed_T = randomness.keys(0, positions_T, piece_ids_T)
    sums_T1 = np.concatenate([np.zeros(1, np.uint64), np.cumsum(placed_T, dtype=np.uint64)])  # modulo 2**64
    sums_N = np.diff(sums_T1[piece_borders_N1])
    return ((sums_N >> np.uint64(2)) | np.uint64(1 << 62)).astype(np.int64)


@lru_cache(maxsize=8)
def _width_cdfs(span_width_p: float, max_words: int) -> tuple[np.ndarray, np.ndarray]:
    """Distribution functions of the widths, equal to drawing both again until a + b < n.

    first_cdf[n, w-1] = P(a <= w | sentence of n words), rows 0..2*max_words+1 (longer sentences as the last);
    second_cdf[m, w-1] = P(b <= w | b < m), rows 0..max_words+1, m = n - a. Rows without a possible width are all 1.
    """
    widths = np.arange(1, max_words + 1)
    weight = (1 - span_width_p) ** (widths - 1.0)
    weight_sum = np.concatenate([[0.0], np.cumsum(weight)])

    def normalised(weights: np.ndarray) -> np.ndarray:
        sums = np.cumsum(weights, axis=1)
        total = sums[:, -1:]
        return np.where(sums < total, sums / np.where(total > 0, total, 1), 1.0)

    words = np.arange(2 * max_words + 2)[:, None]
    room_for_b = np.clip(words - 1 - widths, 0, max_words)
    first = normalised(weight * weight_sum[room_for_b])
    limit = np.arange(max_words + 2)[:, None]
    second = normalised(np.where(widths < limit, weight, 0.0))
    return first, second


def draw_spans(words_N: np.ndarray, keys_N: np.ndarray, config: CorruptionConfig) -> np.ndarray:
    """span_words_N5: two widths, geometric conditioned on a + b < n; L, M, R uniform over all C(n-a-b+2, 2) ways."""
    first_cdf, second_cdf = _width_cdfs(config.span_width_p, config.max_span_words)
    u_N2 = randomness.uniform(randomness.draws(keys_N[:, None], Purpose.SPAN_WIDTHS, np.arange(2)))
    row_N = np.minimum(words_N, len(first_cdf) - 1)
    a_N = 1 + (first_cdf[row_N] <= u_N2[:, :1]).sum(axis=1)
    row_N = np.minimum(words_N - a_N, len(second_cdf) - 1)
    b_N = 1 + (second_cdf[row_N] <= u_N2[:, 1:]).sum(axis=1)

    rest_N = words_N - a_N - b_N
    ways_N = (rest_N + 2) * (rest_N + 1) // 2
    way_N = randomness.below(randomness.draws(keys_N, Purpose.SPAN_LENGTHS), ways_N)
    left_N, middle_N, right_N = split_rest(way_N, rest_N)
    return np.stack([left_N, a_N, middle_N, b_N, right_N], axis=1)


def split_rest(way_N: np.ndarray, rest_N: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(L, M, R) of sum rest; ways 0 .. C(rest + 2, 2) - 1 give each triple once.

    A triple is two different bars i < j among rest + 2 places; the pair has number j(j-1)/2 + i.
    """
    high_N = (1 + np.sqrt(8 * way_N + 1).astype(np.int64)) // 2
    low_N = way_N - high_N * (high_N - 1) // 2
    return low_N, high_N - low_N - 1, rest_N + 1 - high_N


def draw_orders(span_words_N5: np.ndarray, keys_N: np.ndarray, config: CorruptionConfig) -> np.ndarray:
    """orders_CN5: at most `permuted_spans` of the spans wide enough, each with an order; -1 for the others.

    One copy: an order uniform over all six. More: copy 0 has the true order, the others distinct other ones.
    """
    spans = np.arange(SPANS)
    bits_N5 = randomness.draws(keys_N[:, None], Purpose.PERMUTED_SPANS, spans)
    wide_N5 = span_words_N5 >= config.min_permuted_words
    # Ranks of random numbers with the narrow spans last: the taken ones are a random choice among the wide.
    ranks_N5 = np.where(wide_N5, bits_N5 >> np.uint64(1), np.uint64(2**63)).argsort(axis=1).argsort(axis=1)
    taken_N5 = wide_N5 & (ranks_N5 < config.permuted_spans)
    if config.permutations == 1:
        labels_CN5 = randomness.below(randomness.draws(keys_N[:, None], Purpose.ORDERS, spans), len(ORDERS))[None]
    else:
        others = len(ORDERS) - 1
        index_5O = spans[:, None] * others + np.arange(others)
        bits_N5O = randomness.draws(keys_N[:, None, None], Purpose.ORDERS, index_5O)
        labels_N5C = 1 + bits_N5O.argsort(axis=2)[:, :, : config.permutations - 1]
        true_1N5 = np.zeros((1, *span_words_N5.shape), dtype=np.int64)
        labels_CN5 = np.concatenate([true_1N5, labels_N5C.transpose(2, 0, 1)])
    return np.where(taken_N5, labels_CN5, -1)


def permute_words(span_words_N5: np.ndarray, orders_CN5: np.ndarray, word_borders_N1: np.ndarray) -> np.ndarray:
    """source_word_V: for each place of each row, the original word (index into W) that the orders put there."""
    copies, n_words = len(orders_CN5), int(word_borders_N1[-1])
    source_CW = np.tile(np.arange(n_words), (copies, 1))
    copy_P, sentence_P, span_P = np.nonzero(orders_CN5 > 0)
    length_P = span_words_N5[sentence_P, span_P]
    start_P = exclusive_cumsum(span_words_N5)[sentence_P, span_P] + word_borders_N1[sentence_P]
    part_P3 = ORDERS[orders_CN5[copy_P, sentence_P, span_P]]
    one_P = np.ones_like(length_P)
    size_P3 = np.take_along_axis(np.stack([one_P, length_P - 2, one_P], axis=1), part_P3, axis=1)
    from_P3 = np.take_along_axis(np.stack([0 * one_P, one_P, length_P - 1], axis=1), part_P3, axis=1)
    into_P3 = exclusive_cumsum(size_P3) + start_P[:, None]

    within = ranges(size_P3.ravel())
    sizes = size_P3.ravel()
    into = np.repeat((into_P3 + (copy_P * n_words)[:, None]).ravel(), sizes) + within
    source_V = source_CW.ravel()
    source_V[into] = np.repeat((from_P3 + start_P[:, None]).ravel(), sizes) + within
    return source_V


def tbo_budgets(pieces_N: np.ndarray, config: CorruptionConfig) -> np.ndarray:
    """min(max_tbo_pieces, ceil(tbo_fraction x pieces)), in integers: the fraction as written in decimals, so that

    0.15 x 20 is 3 and not a little more, which a float's ceil would make 4.
    """
    fraction = Fraction(str(config.tbo_fraction))
    return np.minimum(-(-pieces_N * fraction.numerator // fraction.denominator), config.max_tbo_pieces)


def take_words(
    cost_W: np.ndarray, words_N: np.ndarray, budgets_N: np.ndarray, keys_N: np.ndarray, purpose: Purpose
) -> np.ndarray:
    """taken_W, bool: words that cost something in random order, taken while they fit what is left of the budget.

    A word's cost is in pieces: for TBO all but its first. A word that does not fit is skipped, later ones may fit. One
    round decides on one word of every sentence, so there are as many rounds as the richest sentence has candidates.
    """
    sentence_W = np.repeat(np.arange(len(words_N)), words_N)
    candidates = np.flatnonzero((cost_W > 0) & (cost_W <= budgets_N[sentence_W]))
    place = candidates - (np.cumsum(words_N) - words_N)[sentence_W[candidates]]
    bits = randomness.draws(keys_N[sentence_W[candidates]], purpose, place)
    candidates = candidates[np.lexsort((bits, sentence_W[candidates]))]

    count_N = np.bincount(sentence_W[candidates], minlength=len(words_N))
    turn = ranges(count_N)
    by_turn = candidates[np.argsort(turn, kind="stable")]
    left_N = budgets_N.copy()
    taken_W = np.zeros(len(cost_W), dtype=bool)
    start = 0
    for in_turn in np.bincount(turn).tolist():
        words = by_turn[start : start + in_turn]
        start += in_turn
        owners = sentence_W[words]
        fits = cost_W[words] <= left_N[owners]
        left_N[owners] -= cost_W[words] * fits
        taken_W[words] = fits
    return taken_W
