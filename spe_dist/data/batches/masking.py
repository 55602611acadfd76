"""Masked language modelling: the plain sentence with some pieces hidden (METHOD, Beyond the paper).

Which pieces, and what stands in their places, is a pure function of (seed, epoch, sentence id), as in `corruption`.

Legend of the shape suffixes:
    N sentences, T pieces of the sentences, W words, Y pieces that are predicted
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch

from spe_dist.config.pretraining import CorruptionConfig
from spe_dist.data.batches.corruption import take_words, text_ids
from spe_dist.data.batches.packed import PackedBatch
from spe_dist.data.batches.packing import SpecialPieces
from spe_dist.data.shards.reader import SentenceBatch
from spe_dist.utils import randomness
from spe_dist.utils.ragged import borders, ranges
from spe_dist.utils.randomness import Purpose

# Of the predicted pieces, as BERT: shown as [MASK], as a piece drawn from the vocabulary, as they are.
MASK_SHARE, RANDOM_SHARE = 0.8, 0.1


def choose_pieces(sentences: SentenceBatch, keys_N: np.ndarray, config: CorruptionConfig) -> np.ndarray:
    """The pieces to predict, ascending indices into T: at least one of each sentence.

    A sentence has max(1, round(mlm_fraction x pieces)) of them, distinct and uniformly drawn. With `mlm_whole_words`
    words in random order are taken while all their pieces fit that number, or the pieces of its shortest word.
    """
    pieces_N = np.diff(sentences.piece_borders_N1)
    fraction = Fraction(str(config.mlm_fraction))
    wanted_N = np.maximum(1, (2 * pieces_N * fraction.numerator + fraction.denominator) // (2 * fraction.denominator))
    if config.mlm_whole_words:
        words_N = np.diff(sentences.word_borders_N1)
        word_pieces_W = np.diff(sentences.first_piece_W, append=len(sentences.piece_ids_T))
        shortest_N = np.minimum.reduceat(word_pieces_W, sentences.word_borders_N1[:-1])
        taken_W = take_words(word_pieces_W, words_N, np.maximum(wanted_N, shortest_N), keys_N, Purpose.MLM_CHOICE)
        return np.flatnonzero(np.repeat(taken_W, word_pieces_W))
    sentence_T = np.repeat(np.arange(len(pieces_N)), pieces_N)
    place_T = ranges(pieces_N)
    bits_T = randomness.draws(keys_N[sentence_T], Purpose.MLM_CHOICE, place_T)
    by_chance_T = np.lexsort((bits_T, sentence_T))  # sentence after sentence, so that places are ranks
    return np.sort(by_chance_T[place_T < wanted_N[sentence_T]])


def hide_pieces(
    sentences: SentenceBatch, chosen_Y: np.ndarray, keys_N: np.ndarray, special: SpecialPieces
) -> np.ndarray:
    """piece_ids_T as the model sees them: of the chosen, 80% are [MASK], 10% any piece, 10% themselves."""
    assert special.vocabulary_size > 0
    piece_ids_T = sentences.piece_ids_T.astype(np.int64)
    sentence_Y = np.searchsorted(sentences.piece_borders_N1, chosen_Y, side="right") - 1
    place_Y, keys_Y = chosen_Y - sentences.piece_borders_N1[sentence_Y], keys_N[sentence_Y]
    share_Y = randomness.uniform(randomness.draws(keys_Y, Purpose.MLM_REPLACEMENT, place_Y))
    bits_Y = randomness.draws(keys_Y, Purpose.MLM_RANDOM_PIECE, place_Y)
    random_Y = randomness.below(bits_Y, special.vocabulary_size)
    shown_Y = np.where(share_Y < MASK_SHARE + RANDOM_SHARE, random_Y, piece_ids_T[chosen_Y])
    piece_ids_T[chosen_Y] = np.where(share_Y < MASK_SHARE, special.mask_id, shown_Y)
    return piece_ids_T


def masked_batch(
    sentences: SentenceBatch,
    sentence_ids_N: np.ndarray,
    epochs_N: np.ndarray | int,
    seed: int,
    special: SpecialPieces,
    config: CorruptionConfig,
) -> PackedBatch:
    """One sequence [CLS] pieces [SEP] a sentence, without words and spans; `mlm_token_Y` are the pieces to predict."""
    keys_N = randomness.keys(seed, epochs_N, sentence_ids_N)
    chosen_Y = choose_pieces(sentences, keys_N, config)
    shown_T = hide_pieces(sentences, chosen_Y, keys_N, special)
    pieces_N = np.diff(sentences.piece_borders_N1)
    n = len(pieces_N)
    sequence_T = np.repeat(np.arange(n), pieces_N)
    token_T = np.arange(len(shown_T)) + 2 * sequence_T + 1  # behind the [CLS] and [SEP] of earlier sentences
    tokens_N = pieces_N + 2
    ends = borders(tokens_N)
    piece_ids = np.empty(int(ends[-1]), dtype=np.int64)
    piece_ids[ends[:-1]], piece_ids[ends[1:] - 1], piece_ids[token_T] = special.cls_id, special.sep_id, shown_T
    none = torch.empty(0, dtype=torch.int64)
    return PackedBatch(
        sentence_ids_B=_tensor(sentence_ids_N),
        text_ids_B=_tensor(text_ids(sentences.piece_ids_T, sentences.piece_borders_N1)),
        piece_ids_T=_tensor(piece_ids),
        positions_T=_tensor(ranges(tokens_N)),
        cu_seqlens_Q1=torch.from_numpy(ends.astype(np.int32)),
        first_piece_W=none,
        span_borders_S1=torch.zeros(1, dtype=torch.int64),
        tbo_first_piece_M=none,
        tbo_offset_M=none,
        tbo_label_M=none,
        spo_span_P=none,
        spo_label_P=none,
        max_seqlen=int(tokens_N.max(initial=0)),
        view_tokens=0,
        view_words=0,
        further_places_F=_tensor(2 * config.permutations * n + np.arange(n)),
        mlm_token_Y=_tensor(token_T[chosen_Y]),
        mlm_label_Y=_tensor(sentences.piece_ids_T[chosen_Y]),
    )


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.int64, copy=False))
