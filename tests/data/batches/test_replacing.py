"""Sentences that are left out, and those in their places."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spe_dist.data.batches.order import Order
from spe_dist.data.batches.replacing import Replacements


@given(st.data())
def test_the_next_sentence_that_is_trained_takes_the_place(data):
    count = data.draw(st.integers(1, 30))
    left_out = data.draw(st.sets(st.integers(0, count - 1), max_size=count - 1))
    asked = np.array(data.draw(st.lists(st.integers(0, count - 1), max_size=40)), dtype=np.int64)
    found, replaced = Replacements(sorted(left_out), count)(asked)
    expected = []
    for sentence in asked.tolist():
        while sentence in left_out:
            sentence = (sentence + 1) % count
        expected.append(sentence)
    assert found.tolist() == expected
    assert replaced.tolist() == [sentence in left_out for sentence in asked.tolist()]


def test_an_order_without_some_sentences_is_the_same_elsewhere_for_any_number_of_ranks():
    blocks = np.array([7, 5, 9])
    order = Order(blocks, 3, 4, 8)
    without = order.leaving_out((6, 7, 20))
    following = {6: 8, 7: 8, 20: 0}
    seen, replaced = set(), 0
    for step in range(20):
        before, after = order.slots(step, 0, 8), without.slots(step, 0, 8)
        expected = [following.get(s, s) for s in before.sentences_N.tolist()]
        assert after.sentences_N.tolist() == expected and after.epochs_N.tolist() == before.epochs_N.tolist()
        places = without.block_starts_B[after.blocks_N] + after.index_in_block_N
        assert places.tolist() == expected and (after.index_in_block_N < blocks[after.blocks_N]).all()
        halves = [without.slots(step, first, 4) for first in (0, 4)]
        assert np.concatenate([half.sentences_N for half in halves]).tolist() == expected
        assert sum(half.replaced for half in halves) == after.replaced
        seen, replaced = seen | set(expected), replaced + after.replaced
    assert seen == set(range(21)) - following.keys() and replaced > 10
    assert Order(blocks, **without.settings()).slots(0, 0, 8).replaced == without.slots(0, 0, 8).replaced
