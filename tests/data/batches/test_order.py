import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spe_dist.data.batches.order import Order, choose_streams
from spe_dist.errors import CheckpointError, ConfigError, DataError

EARLIER_BLOCKS = [[0, 1, 3, 2, 4], [2, 0, 3, 4, 1], [2, 3, 0, 1, 4]]
EARLIER_SENTENCES = [
    196,
    212,
    228,
    244,
    260,
    276,
    292,
    308,
    325,
    342,
    359,
    6,
    23,
    40,
    57,
    74,
    91,
    108,
    125,
    142,
    159,
    176,
    373,
    390,
]


@st.composite
def orders(draw):
    sizes = draw(st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(lambda s: sum(s) > 0))
    global_batch = draw(st.integers(1, min(sum(sizes), 24)))
    divisors = [n for n in range(1, global_batch + 1) if global_batch % n == 0]
    cuts = sorted(draw(st.lists(st.integers(0, len(sizes)), max_size=4)))
    shard_blocks = draw(st.sampled_from([None, np.diff([0, *cuts, len(sizes)])]))
    seed, streams = draw(st.integers(0, 2**32)), draw(st.sampled_from(divisors))
    return Order(np.array(sizes), seed, streams, global_batch, shard_blocks=shard_blocks)


def plain_streams(order: Order, epochs: int) -> list[list[tuple[int, int]]]:
    """(epoch, sentence) of each stream in order, by writing out every epoch and cutting it."""
    streams: list[list[tuple[int, int]]] = [[] for _ in range(order.streams)]
    total = order.sentences_per_epoch
    base, longer = divmod(total, order.streams)
    for epoch in range(epochs):
        permutation, _ = order._epoch(epoch)
        sequence = [
            int(order.block_starts_B[block]) + i for block in permutation for i in range(order.block_sentences_B[block])
        ]
        for j, stream in enumerate(streams):
            length = base + ((j - epoch * longer) % order.streams < longer)
            stream += [(epoch, sentence) for sentence in sequence[:length]]
            del sequence[:length]
        assert not sequence
    return streams


@given(orders())
def test_slots_are_the_streams_written_out(order):
    streams = plain_streams(order, epochs=4)
    share = order.sentences_per_stream
    for step in range(min(len(stream) for stream in streams) // share):
        expected = [pair for stream in streams for pair in stream[step * share : (step + 1) * share]]
        places = order.slots(step, 0, order.global_batch)
        assert list(zip(places.epochs_N.tolist(), places.sentences_N.tolist(), strict=True)) == expected
        assert (places.sentences_N == order.block_starts_B[places.blocks_N] + places.index_in_block_N).all()
        assert (places.index_in_block_N < order.block_sentences_B[places.blocks_N]).all()
        assert order.epoch_of(step) == expected[0][0]


@given(orders(), st.integers(2, 4))
def test_each_epoch_holds_every_sentence_exactly_once(order, epochs):
    seen = set()
    for step in range(order.steps_for(epochs + 1)):
        places = order.slots(step, 0, order.global_batch)
        for pair in zip(places.epochs_N.tolist(), places.sentences_N.tolist(), strict=True):
            assert pair not in seen
            seen.add(pair)
    for epoch in range(epochs):
        assert {s for e, s in seen if e == epoch} == set(range(order.sentences_per_epoch))


@given(orders(), st.integers(0, 10**9), st.data())
def test_any_cut_of_the_slots_gives_the_same_sentences(order, step, data):
    whole = order.slots(step, 0, order.global_batch)
    ranks = data.draw(st.sampled_from([n for n in range(1, order.global_batch + 1) if order.global_batch % n == 0]))
    share = order.global_batch // ranks
    fresh = Order(order.block_sentences_B, **order.settings())
    parts = [fresh.slots(step, rank * share, share) for rank in reversed(range(ranks))][::-1]
    for name in ("epochs_N", "blocks_N", "index_in_block_N", "sentences_N"):
        assert np.concatenate([getattr(part, name) for part in parts]).tolist() == getattr(whole, name).tolist()


def test_epochs_and_seeds_have_different_permutations():
    sizes = np.full(50, 10)
    permutations = [tuple(Order(sizes, seed, 0, 10)._epoch(epoch)[0]) for seed in range(3) for epoch in range(5)]
    assert len(set(permutations)) == 15
    assert all(sorted(p) == list(range(50)) for p in permutations)


def test_by_shards_each_stream_reads_one_shard_after_another_in_an_order_of_its_epoch():
    shard_blocks = np.array([3, 1, 4, 2, 5])
    shard_of_block = np.repeat(np.arange(5), shard_blocks)
    seen = set()
    for epoch in range(20):
        permutation, _ = Order(np.full(15, 10), 7, 0, 10, shard_blocks=shard_blocks)._epoch(epoch)
        shards = shard_of_block[permutation]
        assert sorted(permutation) == list(range(15)) and np.count_nonzero(np.diff(shards)) == 4
        seen.add((tuple(dict.fromkeys(shards.tolist())), tuple(permutation[shards == 4].tolist())))
    assert len({shards for shards, _ in seen}) > 10 and len({blocks for _, blocks in seen}) > 10


def test_the_order_of_earlier_runs_stays():
    """Runs resume by (seed, step): another permutation would lose and repeat sentences. Values of the first release."""
    order = Order(np.array([100, 90, 80, 100, 30]), 5, 0, 24)
    assert [order._epoch(epoch)[0].tolist() for epoch in range(3)] == EARLIER_BLOCKS
    assert order.slots(40, 0, 24).sentences_N.tolist() == EARLIER_SENTENCES


def test_a_position_after_billions_of_sentences_is_found_at_once():
    order = Order(np.full(4_800, 1_000), 0, 0, 256)
    began = time.perf_counter()
    places = order.slots(10**9, 0, 256)
    assert time.perf_counter() - began < 10  # epoch by epoch it takes minutes
    assert set(places.epochs_N.tolist()) <= {53_333, 53_334}
    assert len(order._epochs) <= 2


def test_only_a_few_epochs_are_kept():
    order = Order(np.array([3, 4]), 0, 1, 1)
    for step in range(200):
        order.slots(step, 0, 1)
    assert len(order._epochs) <= 4


def test_a_checkpoint_by_shards_resumes_by_shards_alone():
    by_blocks = Order(np.array([50]), 3, 4, 8, "abc")
    by_shards = Order(np.array([50]), 3, 4, 8, "abc", np.array([1]))
    assert by_shards.check(by_shards.state_dict(17)) == 17
    with pytest.raises(CheckpointError, match="order = blocks, this run has shards"):
        by_shards.check(by_blocks.state_dict(17))


def test_by_shards_at_most_8_streams_are_chosen():
    assert [Order(np.array([600]), 0, 0, n, "", np.array([1])).streams for n in (256, 300, 7)] == [8, 6, 7]


def test_streams_are_the_largest_divisor_up_to_256():
    assert [choose_streams(n) for n in (1, 6, 256, 512, 300, 257)] == [1, 6, 256, 256, 150, 1]


def test_too_few_sentences_name_both_numbers_and_a_remedy():
    with pytest.raises(DataError, match=r"10 training sentences, fewer than global_batch_sentences=16.*at most 10"):
        Order(np.array([4, 6]), 0, 0, 16)


def test_streams_that_do_not_divide_name_the_nearest_that_do():
    with pytest.raises(ConfigError, match=r"streams=5 does not divide global_batch_sentences=12; choose 4 or 6"):
        Order(np.array([50]), 0, 5, 12)
    with pytest.raises(ConfigError, match=r"streams=13 .* choose 12, or 0"):
        Order(np.array([50]), 0, 13, 12)
    with pytest.raises(ConfigError, match="not positive"):
        choose_streams(0)


def test_a_checkpoint_of_the_same_order_gives_its_step():
    order = Order(np.array([50]), 3, 4, 8, "abc")
    state = order.state_dict(17)
    assert state == {
        "sentences_consumed": 136,
        "global_batch": 8,
        "streams": 4,
        "seed": 3,
        "manifest_hash": "abc",
    }
    assert order.check(state) == 17


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"manifest_hash": "other"}, "manifest = other, this run has abc"),
        ({"global_batch": 16}, "global_batch_sentences = 16, this run has 8"),
        ({"streams": 2}, "streams = 2, this run has 4"),
        ({"seed": 4}, "seed = 4, this run has 3"),
        ({"order": "shards"}, "order = shards, this run has blocks"),
        ({"sentences_consumed": 137}, "not a multiple"),
    ],
)
def test_a_checkpoint_of_another_order_names_the_difference(change, message):
    order = Order(np.array([50]), 3, 4, 8, "abc")
    with pytest.raises(CheckpointError, match=message):
        order.check(order.state_dict(17) | change)


def test_steps_for_epochs_round_up():
    order = Order(np.array([50]), 3, 4, 8)
    assert [order.steps_for(n) for n in (1, 2, 0.5, 0.001)] == [7, 13, 4, 1]
