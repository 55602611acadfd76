import copy

import pytest
import torch
from kept_state import MemorySource, whole_state
from thread_ranks import run_threads
from torch import nn

from spe_dist.distributed.context import start_ranks
from spe_dist.distributed.launch import detect
from spe_dist.errors import CheckpointError, DivergenceError
from spe_dist.moco import KeyQueue, MomentumContrast, MomentumKeyEncoder, PlainWeights

GLOBAL_BATCH, STEPS, QUEUE_KEYS = 8, 7, 20


class Query(nn.Module):
    """A small stand-in for the query encoder: parameters of odd sizes and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.first, self.norm, self.last = nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 3)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
        self.register_buffer("counter", torch.zeros(2))

    def forward(self, inputs):
        return self.last(self.norm(self.first(inputs)))


def sentences(step):
    """Inputs and ids of a whole global batch."""
    inputs = torch.randn(GLOBAL_BATCH, 5, generator=torch.Generator().manual_seed(step))
    return inputs, torch.arange(step * GLOBAL_BATCH, (step + 1) * GLOBAL_BATCH)


def build(collectives, average="sharded", dtype=torch.float32):
    """A query and its momentum contrast, not yet started."""
    query = Query()
    key_module = copy.deepcopy(query).to(dtype).requires_grad_(False)
    source = PlainWeights(query, collectives.rank, collectives.ranks)
    encoder = MomentumKeyEncoder(key_module, source, collectives, 0.9, average, query=query)
    return query, MomentumContrast(encoder, KeyQueue(QUEUE_KEYS, 3), KeyQueue(QUEUE_KEYS, 3))


def train(collectives, query, moco, steps, accumulation=1):
    """Data parallel training written out: keys, one optimizer step on the global mean, follow, enqueue."""
    per_rank = GLOBAL_BATCH // collectives.ranks
    for step in steps:
        inputs, ids = (t[collectives.rank * per_rank :][:per_rank] for t in sentences(step))
        keys, loss = [], torch.zeros(())
        for micro in inputs.chunk(accumulation):
            keys.append(moco.key_module(micro.to(moco.key_module.first.weight.dtype)))
            loss = loss + query(micro).square().sum() / GLOBAL_BATCH
        gradients = torch.autograd.grad(loss, list(query.parameters()))
        flat = torch.cat([g.view(-1) for g in gradients])
        flat = collectives.all_gather_rows(flat[None]).sum(0)
        with torch.no_grad():
            nn.utils.vector_to_parameters(
                nn.utils.parameters_to_vector(query.parameters()) - 0.05 * flat, query.parameters()
            )
            query.counter.add_(1)
        moco.follow()
        moco.enqueue(torch.cat(keys), -torch.cat(keys), ids)


def trained(collectives, average="sharded", dtype=torch.float32, accumulation=1):
    query, moco = build(collectives, average, dtype)
    moco.start()
    train(collectives, query, moco, range(STEPS), accumulation)
    moco.check_equal()
    return query, moco


@pytest.mark.parametrize("average", ["sharded", "replicated"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_start_gives_an_exact_copy_of_the_query_on_every_rank(ranks, dtype, average):
    def rank(collectives):
        query, moco = build(collectives, average, dtype)
        for parameter in moco.key_module.parameters():
            parameter.zero_()
        query.counter.fill_(9)
        moco.start()
        for name, parameter in query.state_dict().items():
            assert torch.equal(moco.key_module.state_dict()[name], parameter.to(dtype)), name

    run_threads(ranks, rank)


@pytest.mark.parametrize("average", ["sharded", "replicated"])
@pytest.mark.parametrize(("ranks", "accumulation"), [(1, 4), (2, 1), (2, 2), (4, 1), (4, 2)])
def test_any_number_of_ranks_gives_the_queue_of_one_rank(ranks, accumulation, average):
    (_, expected), *_ = run_threads(1, trained)
    for _, moco in run_threads(ranks, lambda c: trained(c, average, accumulation=accumulation)):
        for queue, wanted in ((moco.pair_queue, expected.pair_queue), (moco.context_queue, expected.context_queue)):
            assert torch.equal(queue.ids_K, wanted.ids_K)
            assert torch.equal(queue.cursor, wanted.cursor) and torch.equal(queue.fill, wanted.fill)
            assert (queue.keys_KC - wanted.keys_KC).abs().max() < 1e-5
        assert torch.equal(moco.key_module.counter, torch.full((2,), float(STEPS)))


@pytest.mark.distributed
@pytest.mark.parametrize(("ranks", "accumulation"), [(2, 2), (4, 1)])
def test_processes_over_gloo_give_the_queue_of_one_rank(run_ranks, ranks, accumulation):
    (_, expected), *_ = run_threads(1, trained)

    def one_process():
        context = start_ranks(detect(), timeout_s=60)
        _, moco = trained(context, accumulation=accumulation)
        return moco.pair_queue.state_dict(), moco.key_encoder.named_tensors()

    results = run_ranks(one_process, ranks)
    for queue, weights in results:
        assert torch.equal(queue["ids_K"], expected.pair_queue.ids_K)
        assert (queue["keys_KC"] - expected.pair_queue.keys_KC).abs().max() < 1e-5
        for name, weight in weights.items():
            assert torch.equal(weight, results[0][1][name]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_sharded_and_replicated_averages_give_equal_bits_on_all_ranks(dtype):
    modules = [
        moco.key_module
        for average in ("sharded", "replicated")
        for _, moco in run_threads(3, lambda c, average=average: follow_a_fixed_path(c, average, dtype))
    ]
    for module in modules[1:]:
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor, modules[0].state_dict()[name]), name


def follow_a_fixed_path(collectives, average, dtype):
    query, moco = build(collectives, average, dtype)
    moco.start()
    for step in range(5):
        generator = torch.Generator().manual_seed(step)
        for parameter in query.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
        moco.follow()
    return query, moco


@pytest.mark.parametrize(("saved_ranks", "resumed_ranks"), [(1, 1), (4, 4), (4, 2), (2, 4)])
@pytest.mark.parametrize("average", ["sharded", "replicated"])
@pytest.mark.parametrize("resumed_average", ["sharded", "replicated"])
def test_saved_state_continues_bit_exactly_at_any_number_of_ranks(saved_ranks, resumed_ranks, average, resumed_average):
    states = run_threads(saved_ranks, lambda c: whole_state(follow_a_fixed_path(c, average, torch.bfloat16)[1], c))

    def rank(collectives):
        query, moco = build(collectives, resumed_average, torch.bfloat16)
        moco.load(MemorySource(states[0]))
        for name, parameter in moco.key_module.named_parameters():  # keys are made of it before it follows again
            assert torch.equal(parameter, states[0][f"key_average/{name}"].bfloat16()), name
        again = whole_state(moco, collectives)
        for parameter in query.parameters():
            parameter.data += 1
        moco.follow()
        moco.check_equal()
        return again, moco.key_module.state_dict()

    def uninterrupted(collectives):
        query, moco = follow_a_fixed_path(collectives, average, torch.bfloat16)
        for parameter, start in zip(query.parameters(), Query().parameters(), strict=True):
            parameter.data = start.data + 1
        moco.follow()
        return moco.key_module.state_dict()

    resumed = run_threads(resumed_ranks, rank)
    assert resumed[0][0].keys() == states[0].keys()
    for name, tensor in states[0].items():
        assert torch.equal(resumed[0][0][name], tensor), name
    expected = run_threads(1, uninterrupted)[0]
    for _, weights in resumed:
        for name in dict(Query().named_parameters()):
            assert torch.equal(weights[name], expected[name]), name


def test_keys_of_one_step_larger_than_the_queue_leave_its_last_keys():
    def rank(collectives):
        _, moco = build(collectives)
        ids = torch.arange(12) + 12 * collectives.rank
        moco.enqueue(ids[:, None].expand(12, 3).float(), -ids[:, None].expand(12, 3).float(), ids)
        return moco

    for moco in run_threads(2, rank):
        assert sorted(moco.pair_queue.ids_K.tolist()) == list(range(4, 24))
        assert torch.equal(moco.pair_queue.keys_KC[:, 0], moco.pair_queue.ids_K.float())
        assert torch.equal(moco.context_queue.keys_KC[:, 0], -moco.pair_queue.ids_K.float())
        assert moco.pair_queue.cursor == 4


def test_a_restored_run_has_each_queue_as_it_was():
    saved, state = run_threads(1, lambda c: ((moco := trained(c)[1]), whole_state(moco, c)))[0]
    assert not torch.equal(saved.pair_queue.keys_KC, saved.context_queue.keys_KC)

    def rank(collectives):
        _, moco = build(collectives)
        moco.load(MemorySource(state))
        for name in ("pair_queue", "context_queue"):
            for part, tensor in getattr(saved, name).state_dict().items():
                assert torch.equal(getattr(moco, name).state_dict()[part], tensor), (name, part)

    run_threads(2, rank)


def test_a_run_of_an_earlier_version_goes_on_with_ids_of_sentences():
    def rank(collectives):
        moco = trained(collectives)[1]
        state = whole_state(moco, collectives)
        found = []
        for values in ({}, moco.values()):
            _, resumed = build(collectives)
            resumed.load(MemorySource(state, values))
            found.append((resumed.compared, resumed.values()))
        return found

    [(old, old_values), (new, new_values)] = run_threads(1, rank)[0]
    assert (old, new) == ("sentences", "texts")
    assert (old_values, new_values) == ({"queue_ids": "sentences"}, {"queue_ids": "texts"})


@pytest.mark.parametrize("queue", ["pair_queue", "context_queue"])
def test_a_diverged_queue_is_named(queue):
    def rank(collectives):
        _, moco = trained(collectives)
        if collectives.rank == 1:
            getattr(moco, queue).ids_K[3] += 1
        with pytest.raises(DivergenceError, match=rf"{queue.replace('_', ' ')} ids_K \(rank 0 against rank 1\)"):
            moco.check_equal()

    run_threads(2, rank)


def test_a_diverged_key_encoder_is_named():
    def rank(collectives):
        _, moco = trained(collectives)
        if collectives.rank == 1:
            moco.key_module.norm.bias.view(torch.int32)[2] ^= 1
        with pytest.raises(DivergenceError, match=r"key encoder norm\.bias \(rank 0 against rank 1\)"):
            moco.check_equal()

    run_threads(2, rank)


def test_a_state_of_another_model_or_queue_is_refused():
    state = run_threads(1, lambda c: whole_state(trained(c)[1], c))[0]

    def rank(collectives):
        _, moco = build(collectives)
        with pytest.raises(CheckpointError, match=r"first\.bias"):
            moco.load(MemorySource({n: t for n, t in state.items() if n != "key_compensation/first.bias"}))
        moco.pair_queue = KeyQueue(QUEUE_KEYS + 1, 3)
        with pytest.raises(CheckpointError, match="queue_keys"):
            moco.load(MemorySource(state))

    run_threads(1, rank)


def test_whoever_reads_weights_or_saves_them_waits_for_those_under_way():
    def rank(collectives):
        query, moco = follow_a_fixed_path(collectives, "sharded", torch.float32)
        encoder = moco.key_encoder
        seen = []
        for use in (lambda: moco.key_module, moco.check_equal, encoder.named_tensors, moco.follow):
            with torch.no_grad():
                query.first.weight.add_(1)
            moco.follow()
            held = [tensor.clone() for tensor in encoder._targets]
            use()
            seen.append(any(not torch.equal(a, b) for a, b in zip(held, encoder._targets, strict=True)))
        return seen

    assert run_threads(3, rank) == [[True] * 4] * 3
