"""From corrupted sentences to a `PackedBatch`: both views, masked, one behind the other, and targets as flat indices.

The span-pair view shows s1 and s2, the context view L, M and R; what a view does not show is [MASK] in it: one for
each hidden piece with `view_masks="each"`, else one for each hidden span, empty ones too, which is then a word of its
own. Token boundary targets are [MASK] in the view that shows their word, and in the further copies of a sentence too,
where nothing is predicted for them.

Legend of the shape suffixes:
    N sentences, R rows (copies of sentences, see `corruption`), U, V pieces and words of all rows, Q sequences (views),
    S = 5Q spans, T tokens of the sequences, W words of the sequences, M token boundary targets, P permuted spans
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from spe_dist.config.pretraining import CorruptionConfig
from spe_dist.data.batches.corruption import Corrupted
from spe_dist.data.batches.packed import SPANS, PackedBatch
from spe_dist.utils.ragged import borders, exclusive_cumsum, ranges

PAIR, CONTEXT = 0, 1
SHOWN_25 = np.array([[False, True, False, True, False], [True, False, True, False, True]])  # by view and span


@dataclass(frozen=True)
class SpecialPieces:
    """Ids of the pieces that the views add."""

    cls_id: int
    sep_id: int
    mask_id: int
    vocabulary_size: int = 0  # of which masked language modelling draws pieces


def longest_sequence(max_pieces: int, config: CorruptionConfig) -> int:
    """The longest sequence that sentences of at most `max_pieces` pieces ([CLS] and [SEP] included) can give.

    With `view_masks="one"` a span-pair view may be two longer than its sentence: at least one piece is hidden, but an
    empty hidden span has its [MASK] too, so three stand for one. The encoder must have that many positions.
    """
    return max_pieces if config.view_masks == "each" else max_pieces + 2


@dataclass(frozen=True)
class _Rows:
    """Where the spans of each row lie in U and V."""

    first_word_R5: np.ndarray
    words_R5: np.ndarray
    first_piece_R5: np.ndarray
    pieces_R5: np.ndarray


def _rows(corrupted: Corrupted) -> _Rows:
    words_R5 = np.tile(corrupted.span_words_N5, (corrupted.copies, 1))
    first_word_R5 = exclusive_cumsum(words_R5) + corrupted.word_borders_R1[:-1, None]
    first_piece_R5 = corrupted.first_piece_V1[first_word_R5]
    pieces_R5 = corrupted.first_piece_V1[first_word_R5 + words_R5] - first_piece_R5
    return _Rows(first_word_R5, words_R5, first_piece_R5, pieces_R5)


def _choose_sequences(corrupted: Corrupted) -> tuple[np.ndarray, np.ndarray]:
    """(rows_Q, views_Q): both views of copy 0; of the further copies, views that show a permuted span."""
    n = corrupted.n_sentences
    rows = [np.arange(n), np.arange(n)]
    views = [np.full(n, PAIR), np.full(n, CONTEXT)]
    for copy in range(1, corrupted.copies):
        for view in (PAIR, CONTEXT):
            wanted = np.flatnonzero((corrupted.orders_CN5[copy][:, SHOWN_25[view]] >= 0).any(axis=1))
            rows.append(copy * n + wanted)
            views.append(np.full(len(wanted), view))
    return np.concatenate(rows), np.concatenate(views)


@dataclass(frozen=True)
class _Sequences:
    """The views, each seven segments: [CLS], five spans, [SEP]."""

    rows_Q: np.ndarray
    views_Q: np.ndarray
    shown_Q5: np.ndarray  # bool: the view shows the span
    has_pieces_Q5: np.ndarray  # bool: the span has its own pieces, shown or each a [MASK]; else it is one [MASK]
    first_piece_Q5: np.ndarray  # index into U
    tokens_Q7: np.ndarray
    start_Q7: np.ndarray  # index into T


def _sequences(corrupted: Corrupted, rows: _Rows, view_masks: str) -> _Sequences:
    rows_Q, views_Q = _choose_sequences(corrupted)
    shown_Q5 = SHOWN_25[views_Q]
    has_pieces_Q5 = shown_Q5 | (view_masks == "each")
    tokens_Q7 = np.ones((len(rows_Q), SPANS + 2), dtype=np.int64)
    tokens_Q7[:, 1:-1] = np.where(has_pieces_Q5, rows.pieces_R5[rows_Q], 1)
    start_Q7 = exclusive_cumsum(tokens_Q7.ravel()).reshape(tokens_Q7.shape)
    return _Sequences(rows_Q, views_Q, shown_Q5, has_pieces_Q5, rows.first_piece_R5[rows_Q], tokens_Q7, start_Q7)


def _piece_ids(corrupted: Corrupted, sequences: _Sequences, special: SpecialPieces) -> np.ndarray:
    """The pieces of all sequences, [T]: each segment is a slice of the visible pieces or of what follows them."""
    n_pieces = len(corrupted.piece_ids_U)
    visible = np.append(corrupted.piece_ids_U, [special.cls_id, special.sep_id, special.mask_id]).astype(np.int64)
    visible[_masked_pieces(corrupted)] = special.mask_id
    source_Q7 = np.empty_like(sequences.tokens_Q7)
    source_Q7[:, 0], source_Q7[:, -1] = n_pieces, n_pieces + 1
    source_Q7[:, 1:-1] = np.where(sequences.has_pieces_Q5, sequences.first_piece_Q5, n_pieces + 2)
    flat_tokens = sequences.tokens_Q7.ravel()
    n_tokens = int(flat_tokens.sum())
    piece_ids_T = visible[np.repeat((source_Q7 - sequences.start_Q7).ravel(), flat_tokens) + np.arange(n_tokens)]
    masked_Q5 = sequences.has_pieces_Q5 & ~sequences.shown_Q5  # view_masks="each"
    if masked_Q5.any():
        masked_Q7 = np.zeros(sequences.tokens_Q7.shape, dtype=bool)
        masked_Q7[:, 1:-1] = masked_Q5
        piece_ids_T[np.repeat(masked_Q7.ravel(), flat_tokens)] = special.mask_id
    return piece_ids_T


def pack(corrupted: Corrupted, special: SpecialPieces, view_masks: str) -> PackedBatch:
    """The micro-batch of N corrupted sentences, in their order; see `PackedBatch` for its layout.

    Token boundary targets come in the order of the permuted sentences, permuted spans by copy, sentence and span.
    """
    rows = _rows(corrupted)
    sequences = _sequences(corrupted, rows, view_masks)
    rows_Q, views_Q = sequences.rows_Q, sequences.views_Q
    sequence_tokens_Q = sequences.tokens_Q7.sum(axis=1)

    # How far a span's pieces moved from U to T. An empty or hidden span that is one [MASK] has its first word there:
    # the lookup at its first word gives its first piece, which moves onto the [MASK].
    moved_Q5 = sequences.start_Q7[:, 1:-1] - sequences.first_piece_Q5
    words_S = np.where(sequences.has_pieces_Q5, rows.words_R5[rows_Q], 1).ravel()
    word_source_W = np.repeat(rows.first_word_R5[rows_Q].ravel(), words_S) + ranges(words_S)
    first_piece_W = corrupted.first_piece_V1[word_source_W] + np.repeat(moved_Q5.ravel(), words_S)

    targets_M, target_words_M, offsets_M = _tbo_pieces(corrupted)
    tbo_span_M = _span_of_word(corrupted)[target_words_M]
    tbo_sequence_M = tbo_span_M // SPANS + np.where(tbo_span_M % SPANS % 2 == 1, 0, corrupted.n_sentences)
    tbo_first_piece_M = corrupted.first_piece_V1[target_words_M] + moved_Q5[tbo_sequence_M, tbo_span_M % SPANS]
    spo_span_P, spo_label_P = _spo_targets(corrupted, rows_Q, views_Q)
    n_views = 2 * corrupted.n_sentences
    return PackedBatch(
        sentence_ids_B=_tensor(corrupted.sentence_ids_N),
        text_ids_B=_tensor(corrupted.text_ids_N),
        piece_ids_T=_tensor(_piece_ids(corrupted, sequences, special)),
        positions_T=_tensor(ranges(sequence_tokens_Q)),
        cu_seqlens_Q1=_tensor(borders(sequence_tokens_Q), np.int32),
        first_piece_W=_tensor(first_piece_W),
        span_borders_S1=_tensor(borders(words_S)),
        tbo_first_piece_M=_tensor(tbo_first_piece_M),
        tbo_offset_M=_tensor(offsets_M),
        tbo_label_M=_tensor(corrupted.piece_ids_U[targets_M]),
        spo_span_P=_tensor(spo_span_P),
        spo_label_P=_tensor(spo_label_P),
        max_seqlen=int(sequence_tokens_Q.max(initial=0)),
        view_tokens=int(sequence_tokens_Q[:n_views].sum()),
        view_words=int(words_S[: SPANS * n_views].sum()),
        further_places_F=_tensor(_places(corrupted, rows_Q, views_Q)[n_views:]),
    )


def _places(corrupted: Corrupted, rows_Q: np.ndarray, views_Q: np.ndarray) -> np.ndarray:
    """(2 * copy + view) * N + sentence of each sequence."""
    copy_Q, sentence_Q = np.divmod(rows_Q, max(corrupted.n_sentences, 1))
    return (2 * copy_Q + views_Q) * corrupted.n_sentences + sentence_Q


def _tbo_pieces(corrupted: Corrupted) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(index into U, word, offset inside the word) of each target: a chosen word's pieces but the first."""
    words = np.flatnonzero(corrupted.tbo_words_W)
    counts = corrupted.first_piece_V1[words + 1] - corrupted.first_piece_V1[words] - 1
    words_M = np.repeat(words, counts)
    offsets_M = 1 + ranges(counts)
    return corrupted.first_piece_V1[words_M] + offsets_M, words_M, offsets_M


def _masked_pieces(corrupted: Corrupted) -> np.ndarray:
    """Index into U of each piece that is [MASK] for the token boundary objective, in all copies.

    Only those of copy 0 are targets. Were they shown in the other copies, a [MASK] would reveal the true order.
    """
    n_words = len(corrupted.tbo_words_W)
    is_source_W = np.zeros(n_words, dtype=bool)
    is_source_W[corrupted.source_word_V[:n_words][corrupted.tbo_words_W]] = True
    words = np.flatnonzero(is_source_W[corrupted.source_word_V])
    counts = corrupted.first_piece_V1[words + 1] - corrupted.first_piece_V1[words] - 1
    return np.repeat(corrupted.first_piece_V1[words] + 1, counts) + ranges(counts)


def _span_of_word(corrupted: Corrupted) -> np.ndarray:
    """5 * sentence + span of each word of copy 0."""
    lengths = corrupted.span_words_N5.ravel()
    return np.repeat(np.arange(len(lengths)), lengths)


def _spo_targets(corrupted: Corrupted, rows_Q: np.ndarray, views_Q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(span, label) of each permuted span of each copy, in the view that shows it."""
    n = corrupted.n_sentences
    sequence_R2 = np.full((corrupted.copies * n, 2), -1)
    sequence_R2[rows_Q, views_Q] = np.arange(len(rows_Q))
    copy_P, sentence_P, span_P = np.nonzero(corrupted.orders_CN5 >= 0)
    view_P = np.where(span_P % 2 == 1, PAIR, CONTEXT)
    sequence_P = sequence_R2[copy_P * n + sentence_P, view_P]
    return SPANS * sequence_P + span_P, corrupted.orders_CN5[copy_P, sentence_P, span_P]


def _tensor(values: np.ndarray, dtype: type = np.int64) -> torch.Tensor:
    return torch.from_numpy(values.astype(dtype, copy=False))
