from collections import deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spe_dist.errors import ConfigError
from spe_dist.moco import KeyQueue


class DequeReference:
    """One key at a time; slot of the n-th key ever is n modulo the capacity."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.seen, self.keys = capacity, 0, deque(maxlen=capacity)

    def enqueue(self, keys, ids):
        for key, sentence_id in zip(keys, ids, strict=True):
            self.keys.append((self.seen % self.capacity, key, sentence_id))
            self.seen += 1


@settings(max_examples=150)
@given(capacity=st.integers(1, 12), batches=st.lists(st.integers(0, 30), max_size=8))
def test_enqueue_gives_what_one_by_one_gives_for_any_batch_sizes(capacity, batches):
    queue, reference = KeyQueue(capacity, 3), DequeReference(capacity)
    next_id = 100
    for batch in batches:
        ids = torch.arange(next_id, next_id + batch)
        keys = torch.randn(batch, 3, generator=torch.Generator().manual_seed(next_id))
        queue.enqueue(keys, ids)
        reference.enqueue(keys, ids.tolist())
        next_id += batch
    assert queue.fill == len(reference.keys)
    assert queue.cursor == reference.seen % capacity
    for slot, key, sentence_id in reference.keys:
        assert queue.ids_K[slot] == sentence_id
        assert torch.equal(queue.keys_KC[slot], key)
    assert (queue.ids_K[int(queue.fill) :] == -1).all()
    assert (queue.ids_K[: int(queue.fill)] >= 0).all()


def test_state_dict_restores_the_queue_exactly_and_it_goes_on_the_same():
    queue, restored = KeyQueue(10, 4, dtype=torch.bfloat16), KeyQueue(10, 4, dtype=torch.bfloat16)
    queue.enqueue(torch.randn(7, 4), torch.arange(7))
    restored.load_state_dict(queue.state_dict())
    for one in (queue, restored):
        one.enqueue(torch.ones(6, 4), torch.arange(50, 56))
    for name, tensor in queue.state_dict().items():
        assert torch.equal(tensor, restored.state_dict()[name]), name
    assert queue.keys_KC.dtype == torch.bfloat16


def test_a_queue_without_room_is_a_user_error():
    with pytest.raises(ConfigError, match="queue_keys=0"):
        KeyQueue(0, 4)
