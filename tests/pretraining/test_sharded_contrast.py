"""Contrast against queues spread over ranks beside the plain form over the whole queue: loss, gradient, statistics."""

import pytest
import torch
import torch.nn.functional as F
from thread_ranks import run_threads

from spe_dist.benchmark.plain_contrast import plain_contrast
from spe_dist.distributed.context import start_ranks
from spe_dist.distributed.launch import detect
from spe_dist.moco import KeyQueue, ShardedKeyQueue
from spe_dist.pretraining import contrast, sharded_contrast
from spe_dist.pretraining.objectives import contrastive
from spe_dist.pretraining.sharded_contrast import ShardedContrast

SIZE, TEMPERATURE = 9, 0.2
STATISTICS = ("ranked", "positive", "negative", "spread")


def unit(generator, count, dtype, scale, normalize):
    vectors = scale * torch.randn(count, SIZE, dtype=torch.float64, generator=generator)
    return (F.normalize(vectors, dim=1) if normalize else vectors).to(dtype)


def inputs(sizes, queue_keys, entered, normalize, dtype=torch.float32, scale=1.0):
    """Queries and positive keys of both directions and all ranks, their sentences, and batches of keys that entered.

    Some keys are of the queries' own sentences, and one key is nearer to a query than most.
    """
    generator = torch.Generator().manual_seed(7)
    total = sum(sizes)
    queries, positives = ([unit(generator, total, dtype, scale, False) for _ in range(2)] for _ in range(2))
    sentences = torch.randperm(total, generator=generator) + 500
    batches = []
    for number, count in enumerate(entered):
        keys = [unit(generator, count, dtype, scale, normalize) for _ in range(2)]
        ids = torch.arange(1000 * number, 1000 * number + count)
        if count > 3:
            ids[[1, 3]] = sentences[[0, total - 1]]
            keys[0][2] = (-1) ** number * unit(generator, 1, dtype, scale, normalize)[0] + queries[0][total // 2]
        batches.append((keys, ids))
    return queries, positives, sentences, batches


def own(tensor, sizes, rank):
    return tensor.split(list(sizes))[rank]


def sharded(collectives, case, products="float32", queue_dtype=None):
    """This rank's terms and gradients of both directions."""
    sizes, queue_keys, normalize = case["sizes"], case["queue_keys"], case["normalize"]
    queries, positives, sentences, batches = inputs(**case)
    dtype = queue_dtype or queries[0].dtype
    queues = [ShardedKeyQueue(queue_keys, SIZE, collectives.rank, collectives.ranks, dtype) for _ in range(2)]
    for keys, ids in batches:
        for queue, keys_BC in zip(queues, keys, strict=True):
            queue.enqueue(keys_BC, ids)
    mine = [own(q, sizes, collectives.rank).clone().requires_grad_() for q in queries]
    there = [own(p, sizes, collectives.rank) for p in positives]
    ids_B = own(sentences, sizes, collectives.rank)
    terms = ShardedContrast(collectives, mine, ids_B, sizes, TEMPERATURE, normalize, products).terms(there, queues)
    gradients = torch.autograd.grad(sum(term.loss_sum for term in terms), mine)
    return terms, gradients


def whole(case, form, *more, queue_dtype=None):
    """The same over the whole queue on one rank: of each rank's queries, terms; and all gradients."""
    sizes = case["sizes"]
    queries, positives, sentences, batches = inputs(**case)
    queues = [KeyQueue(case["queue_keys"], SIZE, queue_dtype or queries[0].dtype) for _ in range(2)]
    for keys, ids in batches:
        for queue, keys_BC in zip(queues, keys, strict=True):
            queue.enqueue(keys_BC, ids)
    found = []
    for rank, size in enumerate(sizes):
        mine = [own(q, sizes, rank).clone().requires_grad_() for q in queries]
        ids_B = own(sentences, sizes, rank)
        terms = (
            [
                form(q, own(p, sizes, rank), queue.keys_KC, int(queue.fill), ids_B, queue.ids_K, TEMPERATURE, *more)
                for q, p, queue in zip(mine, positives, queues, strict=True)
            ]
            if size
            else None
        )
        found.append((terms, torch.autograd.grad(sum(t.loss_sum for t in terms), mine) if terms else None))
    return found


def compare(results, expected, rtol, atol):
    for (terms, gradients), (wanted, wanted_gradients) in zip(results, expected, strict=True):
        if wanted is None:
            assert [term.count for term in terms] == [0, 0] and all(g.shape == (0, SIZE) for g in gradients)
            assert all(term.loss_sum == 0 and term.correct == 0 for term in terms)
            continue
        for term, plain in zip(terms, wanted, strict=True):
            torch.testing.assert_close(term.loss_sum, plain.loss_sum, rtol=rtol, atol=atol)
            assert (term.count, term.correct) == (plain.count, plain.correct)
            assert term.extra.keys() == plain.extra.keys() == set(STATISTICS)
            for name in STATISTICS:
                torch.testing.assert_close(
                    term.extra[name].double(), plain.extra[name].detach().double(), rtol=1e-5, atol=1e-5
                )
        for gradient, plain_gradient in zip(gradients, wanted_gradients, strict=True):
            assert (gradient - plain_gradient).norm() <= rtol * 4 * plain_gradient.norm() + atol


def case(sizes=(3, 3), queue_keys=37, entered=(20, 30), normalize=True, **more):
    return {"sizes": sizes, "queue_keys": queue_keys, "entered": entered, "normalize": normalize, **more}


RANKS = {1: (6,), 2: (3, 3), 4: (2, 2, 2, 2)}
FILLS = {
    "empty": (),
    "a key": (1,),
    "half full": (20,),
    "full, wrapped around": (20, 30),
    "a batch larger than the queue": (5, 90),
}


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("ranks", RANKS)
def test_in_float64_nothing_but_rounding_separates_it_from_the_plain_form(ranks, fill, normalize):
    given = case(RANKS[ranks], entered=FILLS[fill], normalize=normalize, dtype=torch.float64)
    results = run_threads(ranks, lambda c: sharded(c, given))
    compare(results, whole(given, plain_contrast, normalize), 1e-13, 1e-13)


@pytest.mark.parametrize("queue_dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("ranks", RANKS)
def test_in_float32_it_is_the_replicated_queue_within_rounding(ranks, normalize, queue_dtype, monkeypatch):
    monkeypatch.setattr(contrast, "PIECE_KEYS_CPU", 5)
    given = case(RANKS[ranks], normalize=normalize)
    results = run_threads(ranks, lambda c: sharded(c, given, queue_dtype=queue_dtype))
    compare(results, whole(given, contrastive, normalize, queue_dtype=queue_dtype), 2e-6, 2e-6)


@pytest.mark.parametrize("products", ["tf32", "float16", "bfloat16"])
def test_products_in_fewer_bits_are_those_of_the_replicated_queue(products):
    given = case()
    results = run_threads(2, lambda c: sharded(c, given, products))
    compare(results, whole(given, contrastive, True, products), 1e-3, 1e-3)
    exact = run_threads(2, lambda c: sharded(c, given))
    assert any(a[0].loss_sum != b[0].loss_sum for (a, _), (b, _) in zip(results, exact, strict=True))


@pytest.mark.parametrize("sizes", [(4, 0), (0, 5), (1, 0, 3), (0, 0)])
def test_a_rank_without_queries_takes_part_with_its_keys(sizes):
    given = case(sizes, entered=(20, 30) if sum(sizes) else (), dtype=torch.float64)
    results = run_threads(len(sizes), lambda c: sharded(c, given))
    compare(results, whole(given, plain_contrast, True), 1e-13, 1e-13)


def test_fewer_keys_than_ranks_leave_some_without_any():
    given = case((2, 2, 2), queue_keys=2, entered=(1,), dtype=torch.float64)
    compare(run_threads(3, lambda c: sharded(c, given)), whole(given, plain_contrast, True), 1e-13, 1e-13)


def test_queries_pass_in_groups_where_they_are_many(monkeypatch):
    monkeypatch.setattr(sharded_contrast, "QUERIES_AT_ONCE", 2)
    given = case((3, 2), dtype=torch.float64)
    compare(run_threads(2, lambda c: sharded(c, given)), whole(given, plain_contrast, True), 1e-13, 1e-13)


def test_raw_products_in_the_thousands_neither_overflow_nor_lose_their_rows():
    given = case(normalize=False, scale=30.0)
    expected = whole({**given, "dtype": torch.float64}, plain_contrast, False)
    for (terms, _), (plain, _) in zip(run_threads(2, lambda c: sharded(c, given)), expected, strict=True):
        for term, wanted in zip(terms, plain, strict=True):
            torch.testing.assert_close(term.loss_sum.double(), wanted.loss_sum, rtol=1e-6, atol=0)


@pytest.mark.distributed
@pytest.mark.parametrize("sizes", [(3, 3), (2, 2, 2, 2), (4, 0)])
def test_processes_over_gloo_give_the_plain_form(run_ranks, sizes):
    given = case(sizes, dtype=torch.float64)

    def one_process():
        terms, gradients = sharded(start_ranks(detect(), timeout_s=60), given)
        return [(t.loss_sum.detach(), t.count, t.correct, t.extra) for t in terms], gradients

    results = [
        ([contrast_term(*term) for term in terms], gradients) for terms, gradients in run_ranks(one_process, len(sizes))
    ]
    compare(results, whole(given, plain_contrast, True), 1e-13, 1e-13)


def contrast_term(loss_sum, count, correct, extra):
    from spe_dist.training.terms import Term

    return Term(loss_sum, count, correct, extra)
