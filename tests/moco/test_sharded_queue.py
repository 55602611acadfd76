"""A queue spread over ranks: together its parts are the whole queue, and no rank holds more than its share."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kept_state import MemorySource, whole_of
from thread_ranks import run_threads

from spe_dist.errors import CheckpointError, ConfigError
from spe_dist.moco import KeyQueue, ShardedKeyQueue, sharded_queue
from spe_dist.moco.sharded_queue import BLOCKS_A_RANK, QueueLayout

LAYOUTS = [(2, 1), (5, 3), (2, 4), (127, 1), (300, 2), (1_000, 7), (65_536, 4), (70_001, 3), (65_536, 1_000)]


def batches(sizes, width=3):
    first = 100
    for size in sizes:
        keys = torch.randn(size, width, generator=torch.Generator().manual_seed(first))
        yield keys, torch.arange(first, first + size)
        first += size


@pytest.mark.parametrize(("queue_keys", "ranks"), LAYOUTS)
def test_every_slot_is_one_ranks_and_its_rows_follow_its_slots(queue_keys, ranks):
    seen = torch.zeros(queue_keys, dtype=torch.int64)
    for rank in {0, 1, ranks // 2, ranks - 1} if ranks > 8 else range(ranks):
        layout = QueueLayout(queue_keys, rank, ranks)
        runs = list(layout.runs())
        assert len(runs) <= 2 * BLOCKS_A_RANK
        slots = torch.cat([torch.arange(run.slot, run.slot + run.length) for run in runs] or [seen[:0]])
        assert layout.rows == len(slots) and torch.equal(slots, slots.sort().values)
        seen[slots] += 1
        everything = torch.arange(queue_keys)
        places, rows = layout.mine(everything)
        assert torch.equal(places, slots) and torch.equal(rows, torch.arange(len(slots)))
        for fill in {0, 1, queue_keys // 3, queue_keys // 2 + 1, queue_keys - 1, queue_keys}:
            assert layout.held(fill) == int((slots < fill).sum())
    assert seen.max() == 1 and (ranks > 8 or seen.min() == 1)


@pytest.mark.parametrize(("queue_keys", "ranks"), [(65_536, 2), (65_536, 4), (1 << 20, 64), (1 << 20, 1_000)])
def test_ranks_hold_equally_many_keys_also_while_the_queue_fills(queue_keys, ranks):
    for fill in (queue_keys // 10, queue_keys // 3, queue_keys):
        held = [QueueLayout(queue_keys, rank, ranks).held(fill) for rank in range(ranks)]
        assert sum(held) == fill
        block = QueueLayout(queue_keys, 0, ranks).block
        assert max(held) - min(held) <= block <= max(1, queue_keys / ranks / BLOCKS_A_RANK)


@settings(max_examples=100)
@given(capacity=st.integers(1, 300), ranks=st.integers(1, 4), sizes=st.lists(st.integers(0, 400), max_size=6))
def test_the_parts_are_the_whole_queue_for_any_batch_sizes(capacity, ranks, sizes):
    whole = KeyQueue(capacity, 3)
    parts = [ShardedKeyQueue(capacity, 3, rank, ranks) for rank in range(ranks)]
    for keys, ids in batches(sizes):
        for queue in (whole, *parts):
            queue.enqueue(keys, ids)
    for part in parts:
        assert (part.cursor, part.fill) == (int(whole.cursor), int(whole.fill))
        for run in part.layout.runs():
            assert torch.equal(part.keys_LC[run.rows], whole.keys_KC[run.slots])
            assert torch.equal(part.ids_L[run.rows], whole.ids_K[run.slots])
        assert (part.ids_L[: part.held] >= 0).all() and (part.ids_L[part.held :] == -1).all()
        assert part.is_as_written() and torch.equal(part.entered, parts[0].entered)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_checkpoint_holds_the_whole_queue_of_either_kind_and_fills_any_number_of_ranks(dtype):
    whole = KeyQueue(150, 3, dtype)
    for keys, ids in batches((40, 130)):
        whole.enqueue(keys, ids)

    expected = {f"queue/{name}": tensor for name, tensor in whole.state_dict().items()}

    def rank(collectives):
        queues = ShardedKeyQueue(150, 3, collectives.rank, collectives.ranks, dtype), KeyQueue(150, 3, dtype)
        for queue in queues:
            queue.load("queue", MemorySource(expected), collectives)
        assert queues[0].is_as_written()
        return [whole_of(queue.fragments("queue", collectives), collectives) for queue in queues]

    for ranks in (1, 2, 3):
        for states in run_threads(ranks, rank):
            for state in states:
                assert state.keys() == expected.keys()
                assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("kind", [KeyQueue, lambda *given: ShardedKeyQueue(*given[:2], 0, 1, *given[2:])])
def test_a_saved_queue_of_another_size_or_type_is_refused(kind):
    saved = MemorySource({f"queue/{name}": tensor for name, tensor in KeyQueue(150, 3).state_dict().items()})
    for own in ((151, 3), (150, 4), (150, 3, torch.bfloat16)):
        run_threads(1, lambda c, own=own: refuses(kind(*own), saved, c))


def refuses(queue, saved, collectives):
    with pytest.raises(CheckpointError, match=r"the saved queue holds \[150, 3\] torch\.float32, this run's"):
        queue.load("queue", saved, collectives)


@pytest.mark.parametrize("change", ["a key", "a sentence", "two rows"])
def test_a_part_that_has_changed_is_noticed(change, monkeypatch):
    monkeypatch.setattr(sharded_queue, "ROWS_AT_ONCE", 4)
    queue = ShardedKeyQueue(64, 3, 1, 2)
    for keys, ids in batches((70,)):
        queue.enqueue(keys, ids)
    assert queue.is_as_written()
    if change == "a key":
        queue.keys_LC.view(torch.int32)[3, 1] ^= 1
    elif change == "a sentence":
        queue.ids_L[5] += 1
    else:
        queue.keys_LC[[1, 2]] = queue.keys_LC[[2, 1]]
        queue.ids_L[[1, 2]] = queue.ids_L[[2, 1]]
    assert not queue.is_as_written()


def test_a_queue_without_room_is_a_user_error():
    with pytest.raises(ConfigError, match="queue_keys=0"):
        ShardedKeyQueue(0, 4, 0, 2)
