"""Contrast in one pass over the queue against the plain form: loss, gradient, statistics, memory."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from spe_dist.benchmark.plain_contrast import plain_contrast
from spe_dist.pretraining import contrast
from spe_dist.pretraining.contrast import Negatives, queue_loss
from spe_dist.pretraining.objectives import contrastive

QUERIES, SIZE, KEYS, TEMPERATURE = 6, 9, 37, 0.2


def inputs(normalize, queue_dtype=torch.float32, dtype=torch.float32, scale=1.0):
    """Queries, positive keys, queue, sentences of the queries, sentences of the keys: some are the queries' own."""
    generator = torch.Generator().manual_seed(7)
    queries, positives, queue = (
        scale * torch.randn(n, SIZE, dtype=dtype, generator=generator) for n in (QUERIES, QUERIES, KEYS)
    )
    if normalize:
        queue = F.normalize(queue, dim=1)
    positives[1] = queue[5]  # nearer to a negative than any other
    ids = torch.arange(100, 100 + KEYS)
    ids[[2, 20, 21, 36]] = torch.tensor([501, 503, 503, 500])
    sentences = torch.tensor([503, 500, 505, 501, 504, 502])  # of a batch, in no order
    return queries.requires_grad_(), positives, queue.to(queue_dtype), sentences, ids


def both_forms(normalize, fill, piece_keys, monkeypatch, **given):
    queries, positives, queue, sentences, ids = inputs(normalize, **given)
    monkeypatch.setattr(contrast, "PIECE_KEYS_CPU", piece_keys)
    results = []
    for form in (contrastive, plain_contrast):
        term = form(queries, positives, queue, fill, sentences, ids, TEMPERATURE, normalize)
        results.append((term, torch.autograd.grad(term.loss_sum, queries)[0]))
    return results


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("fill", [0, 1, 3, 20, KEYS])
@pytest.mark.parametrize("piece_keys", [1, 5, 16, KEYS, 1000])
@pytest.mark.parametrize("queue_dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_loss_gradient_and_statistics_are_those_of_the_plain_form(
    normalize, fill, piece_keys, queue_dtype, monkeypatch
):
    (ours, gradient), (plain, expected) = both_forms(normalize, fill, piece_keys, monkeypatch, queue_dtype=queue_dtype)
    torch.testing.assert_close(ours.loss_sum, plain.loss_sum, rtol=5e-7, atol=1e-6)
    rounding = 5e-7 if normalize else 3e-6  # a score of 60 is rounded by 4e-6, and so is its exponential
    assert (gradient - expected).norm() <= rounding * expected.norm() + 1e-7
    assert (ours.count, ours.correct) == (plain.count, plain.correct)
    assert ours.extra.keys() == plain.extra.keys()
    for name, value in plain.extra.items():
        torch.testing.assert_close(ours.extra[name], value.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fill", [0, 20, KEYS])
def test_the_gradient_of_the_queries_is_that_of_finite_differences(fill):
    queries, positives, queue, sentences, ids = inputs(False, dtype=torch.float64, queue_dtype=torch.float64, scale=0.3)
    negatives = Negatives(queue, ids, fill, sentences)
    assert torch.autograd.gradcheck(
        lambda q: queue_loss(q, positives, negatives, TEMPERATURE, piece_keys=7).loss_B, queries
    )


def test_in_float64_nothing_but_rounding_separates_the_forms():
    queries, positives, queue, sentences, ids = inputs(False, dtype=torch.float64, queue_dtype=torch.float64)
    ours = queue_loss(queries, positives, Negatives(queue, ids, 30, sentences), TEMPERATURE, piece_keys=4).loss_B.sum()
    plain = plain_contrast(queries, positives, queue, 30, sentences, ids, TEMPERATURE, False).loss_sum
    torch.testing.assert_close(ours, plain, rtol=1e-14, atol=1e-13)
    gradients = [torch.autograd.grad(loss, queries)[0] for loss in (ours, plain)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-13)


def test_raw_products_in_the_thousands_neither_overflow_nor_lose_their_rows():
    queries, positives, queue, sentences, ids = inputs(False, scale=30.0)
    with torch.no_grad():
        positives *= -1  # scores of -40,000 to 40,000
    ours = contrastive(queries, positives, queue, KEYS, sentences, ids, TEMPERATURE, False)
    plain = plain_contrast(
        queries.double(), positives.double(), queue.double(), KEYS, sentences, ids, TEMPERATURE, False
    )
    torch.testing.assert_close(ours.loss_sum.double(), plain.loss_sum, rtol=1e-6, atol=0)


@pytest.mark.parametrize("fill", [0, 1, 20, KEYS])
def test_a_fill_that_may_not_be_read_masks_the_empty_slots(fill, monkeypatch):
    """Where reading a number would wait for the device, as on a GPU."""
    queries, positives, queue, sentences, ids = inputs(False)
    expected = queue_loss(queries, positives, Negatives(queue, ids, fill, sentences), TEMPERATURE)
    with monkeypatch.context() as patch:
        patch.setattr(Negatives, "on_cpu", False)
        patch.setattr(torch.Tensor, "__int__", lambda tensor: pytest.fail("a tensor was read"))
        patch.setattr(torch.Tensor, "__bool__", lambda tensor: pytest.fail("a tensor was read"))
        fill_0 = torch.tensor(fill)
        masked = queue_loss(queries, positives, Negatives(queue, ids, fill_0, sentences), TEMPERATURE, piece_keys=5)
    for name, value in expected._asdict().items():
        torch.testing.assert_close(getattr(masked, name), value, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("products", "bits"), [("tf32", 11), ("float16", 11), ("bfloat16", 8)])
@pytest.mark.parametrize("normalize", [True, False])
def test_products_in_fewer_bits_err_by_no_more_than_their_rounding(products, bits, normalize):
    queries, positives, queue, sentences, ids = inputs(normalize)
    results = []
    for kind in ("float32", products):
        term = contrastive(queries, positives, queue, KEYS, sentences, ids, TEMPERATURE, normalize, kind)
        results.append((term, torch.autograd.grad(term.loss_sum, queries)[0]))
    (exact, expected), (term, gradient) = results
    largest = (1 if normalize else SIZE * 3) / TEMPERATURE
    error = (term.loss_sum - exact.loss_sum).abs().item()
    assert 0 < error <= QUERIES * largest * 2.0**-bits
    assert 0 < (gradient - expected).norm() <= 8 * 2.0**-bits * expected.norm() * (1 if normalize else 10)
    assert torch.equal(term.extra["positive"], exact.extra["positive"])


class LargestTensor(TorchDispatchMode):
    """Numbers in the largest tensor that any operation inside gives."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and not func.is_view:
                self.numel = max(self.numel, tensor.numel())
        return result


@pytest.mark.parametrize("queue_dtype", [torch.float32, torch.bfloat16], ids=str)
def test_no_tensor_has_a_number_for_every_query_and_key(queue_dtype):
    queue = torch.randn(40_000, 16).to(queue_dtype)
    queries, ids = torch.randn(64, 16, requires_grad=True), torch.arange(40_000)
    with LargestTensor() as largest:
        term = contrastive(queries, queries, queue, 40_000, torch.arange(64), ids, TEMPERATURE, True)
        term.loss_sum.backward()
    assert largest.numel == 64 * contrast.PIECE_KEYS_CPU < 64 * 40_000 // 8


def test_a_million_keys_cost_the_memory_of_their_queue():
    """Peak memory of a process over that with the queue in it; scores alone would be 128 MiB, and are needed twice."""
    program = (
        "import torch; from spe_dist.pretraining.objectives import contrastive\n"
        "from spe_dist.utils.memory import peak_resident_bytes\n"
        "def peak(): return peak_resident_bytes() / 2**20\n"
        "queue, ids = torch.ones(1 << 20, 8), torch.arange(1 << 20); own = torch.arange(32)\n"
        "queries = torch.randn(32, 8, requires_grad=True)\n"
        "def step(n): contrastive(queries, queries, queue[:n], n, own, ids[:n], 0.2, True).loss_sum.backward()\n"
        "step(4096); before = peak(); step(1 << 20); print(peak() - before)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(result.stdout) < 64
