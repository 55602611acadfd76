"""Masked language modelling: which pieces are predicted, what stands in their places, and where they lie."""

import numpy as np
import pytest
import torch

from spe_dist.config.pretraining import CorruptionConfig, ObjectiveConfig
from spe_dist.data.batches.assemble import make_batch
from spe_dist.data.batches.masking import choose_pieces, hide_pieces, masked_batch
from spe_dist.data.batches.packing import SpecialPieces
from spe_dist.data.shards.reader import SentenceReader
from spe_dist.utils import randomness

MASK, VOCABULARY = 4, 500
SPECIAL = SpecialPieces(2, 3, MASK, VOCABULARY)
CONFIG, WHOLE_WORDS = CorruptionConfig(), CorruptionConfig(mlm_whole_words=True)
ONLY_MLM = ObjectiveConfig(tbo=False, spo=False, cspo=False, mlm=True)


def sentences_of(memory_store, ids):
    return SentenceReader(memory_store([4_000]), 1).read(np.zeros(len(ids), dtype=int), np.asarray(ids))


@pytest.fixture
def many(memory_store):
    return sentences_of(memory_store, np.arange(4_000))


def test_fifteen_per_cent_of_each_sentence_are_predicted_and_at_least_one_piece(many):
    chosen = choose_pieces(many, randomness.keys(0, 0, np.arange(4_000)), CONFIG)
    counts = np.histogram(chosen, many.piece_borders_N1)[0]
    pieces = np.diff(many.piece_borders_N1)
    assert counts.tolist() == [max(1, int(0.15 * n + 0.5)) for n in pieces.tolist()]
    assert pieces.min() < 7 and (np.diff(chosen) > 0).all()


def test_every_piece_of_a_sentence_is_predicted_as_often(memory_store):
    sentences = sentences_of(memory_store, np.zeros(20_000, dtype=int))  # one sentence by many keys
    chosen = choose_pieces(sentences, randomness.keys(3, 0, np.arange(20_000)), CONFIG)
    pieces = int(sentences.piece_borders_N1[1])
    counts, expected = np.bincount(chosen % pieces, minlength=pieces), len(chosen) / pieces
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_whole_words_are_predicted_with_all_their_pieces_while_they_fit(many):
    chosen = choose_pieces(many, randomness.keys(0, 0, np.arange(4_000)), WHOLE_WORDS)
    word_of = np.repeat(np.arange(len(many.first_piece_W)), np.diff(many.first_piece_W, append=len(many.piece_ids_T)))
    sizes = np.bincount(word_of)
    assert (np.bincount(word_of[chosen], minlength=len(sizes)) % sizes == 0).all()
    counts, pieces = np.histogram(chosen, many.piece_borders_N1)[0], np.diff(many.piece_borders_N1)
    shortest = np.minimum.reduceat(sizes, many.word_borders_N1[:-1])
    assert (counts >= 1).all() and (counts <= np.maximum(np.floor(0.15 * pieces + 0.5), shortest)).all()
    assert 0.13 < counts.sum() / pieces.sum() < 0.16


def test_eight_tenths_are_masks_one_tenth_any_piece_and_one_tenth_themselves(many):
    keys = randomness.keys(1, 0, np.arange(4_000))
    chosen = choose_pieces(many, keys, CONFIG)
    shown = hide_pieces(many, chosen, keys, SPECIAL)
    untouched = np.ones(len(shown), dtype=bool)
    untouched[chosen] = False
    assert (shown[untouched] == many.piece_ids_T[untouched]).all()
    masks, same = (shown[chosen] == MASK).mean(), (shown[chosen] == many.piece_ids_T[chosen]).mean()
    tolerance = 5 * 0.4 / np.sqrt(len(chosen))
    assert abs(masks - 0.8) < tolerance and abs(same - 0.1) < tolerance
    drawn = shown[chosen][(shown[chosen] != MASK) & (shown[chosen] != many.piece_ids_T[chosen])]
    assert drawn.min() < 20 and drawn.max() > VOCABULARY - 20  # of the whole vocabulary


def test_a_sentence_is_hidden_alike_in_any_batch_and_otherwise_in_another_epoch(memory_store):
    def of(ids, epoch=0, seed=0):
        return masked_batch(sentences_of(memory_store, ids), np.asarray(ids), epoch, seed, SPECIAL, CONFIG)

    alone, among = of([0]), of([3, 0, 9])
    start, end = among.cu_seqlens_Q1[1:3].tolist()
    assert torch.equal(among.piece_ids_T[start:end], alone.piece_ids_T)
    inside = (among.mlm_token_Y >= start) & (among.mlm_token_Y < end)
    assert torch.equal(among.mlm_token_Y[inside] - start, alone.mlm_token_Y)
    assert torch.equal(among.mlm_label_Y[inside], alone.mlm_label_Y)
    others = [of([0], epoch=1), of([0], seed=1)]
    assert all(not torch.equal(other.mlm_token_Y, alone.mlm_token_Y) for other in others)


def test_the_sequences_stand_behind_the_views_which_stay_as_they_are(memory_store):
    ids = np.arange(5)
    sentences, config = sentences_of(memory_store, ids), CorruptionConfig(permutations=3)
    made = {
        name: make_batch(sentences, ids, 0, 0, SPECIAL, config, objectives)
        for name, objectives in {"paper": ObjectiveConfig(), "both": ObjectiveConfig(mlm=True), "mlm": ONLY_MLM}.items()
    }
    paper, both, mlm = made["paper"], made["both"], made["mlm"]
    assert torch.equal(both.piece_ids_T, torch.cat([paper.piece_ids_T, mlm.piece_ids_T]))
    assert torch.equal(both.piece_ids_T[both.mlm_token_Y], mlm.piece_ids_T[mlm.mlm_token_Y])
    for name in ("first_piece_W", "span_borders_S1", "tbo_first_piece_M", "spo_span_P", "tbo_label_M"):
        assert torch.equal(getattr(both, name), getattr(paper, name))
    assert (both.n_sequences, both.n_span_sequences, both.n_views) == (paper.n_sequences + 5, paper.n_sequences, 10)
    assert (mlm.n_sequences, mlm.n_span_sequences, mlm.n_views) == (5, 0, 0)
    keys = [batch.with_dropout_keys(0, 0, 0, 5, 3, mlm=True).dropout_keys for batch in (both, mlm)]
    assert keys[0].places == 35 and torch.equal(keys[0].place_Q[-5:], keys[1].place_Q)
    assert torch.equal(keys[0].key_Q[-5:], keys[1].key_Q) and len(set(keys[0].place_Q.tolist())) == both.n_sequences
