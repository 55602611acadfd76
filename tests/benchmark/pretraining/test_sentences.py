"""Made-up sentences of the benchmark."""

import numpy as np
import pytest

from spe_dist.benchmark.pretraining.sentences import SPECIAL_PIECES, MadeUpSentences
from spe_dist.config.pretraining import CorruptionConfig
from spe_dist.data.batches.order import Order
from spe_dist.data.batches.stream import StepBuilder


@pytest.mark.parametrize("pieces", [12.0, 28.0, 40.0])
def test_sentences_have_as_many_pieces_as_asked_for(pieces):
    store = MadeUpSentences(1_000, pieces, 128)
    blocks = [store.block(index) for index in range(4)]
    sizes = np.concatenate([np.diff(block.piece_offsets_N1) for block in blocks]) + 2
    assert sizes.mean() == pytest.approx(pieces, rel=0.05)
    assert sizes.min() >= 5 and sizes.max() <= 128 and len(set(sizes.tolist())) > 20


def test_a_long_sentence_is_cut_at_a_word():
    block = MadeUpSentences(100, 60.0, 64).block(0)
    sizes = np.diff(block.piece_offsets_N1)
    assert sizes.max() in (61, 62)
    words = np.diff(block.word_offsets_N1)
    assert words.sum() == len(block.first_pieces_W) and block.n_pieces == len(block.piece_ids_T)
    assert (block.first_pieces_W[block.word_offsets_N1[:-1]] == 0).all()


def test_a_block_is_the_same_each_time_and_unlike_the_next():
    one, again, other = (MadeUpSentences(100, 28.0, 128).block(index) for index in (3, 3, 4))
    assert one.to_bytes() == again.to_bytes() != other.to_bytes()
    assert one.piece_ids_T.min() >= SPECIAL_PIECES and one.piece_ids_T.max() < 100


def test_the_builder_makes_batches_of_them():
    def batch(view_masks):
        store, config = MadeUpSentences(500, 28.0, 128), CorruptionConfig(view_masks=view_masks)
        return StepBuilder(store, config, Order(store.block_sentences, 0, 0, 256), 256, 0, 1).build(0).micro_batches[0]

    each, one = batch("each"), batch("one")
    assert each.n_tokens / each.n_sequences == pytest.approx(28, rel=0.1)
    assert one.n_tokens < 0.8 * each.n_tokens and len(each.tbo_label_M) > 256
