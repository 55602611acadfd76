"""Each objective against a plain form in float64, values and gradients; sums that do not depend on the cut."""

import math

import pytest
import torch

from spe_dist.pretraining.objectives import contrastive, contrastive_span_pair, span_permutation, token_boundary
from spe_dist.training.terms import Term, total


def plain_cross_entropy(rows, labels):
    """-log of the softmax's entry, example by example."""
    return sum(-(row[label] - torch.logsumexp(row, 0)) for row, label in zip(rows, labels, strict=True))


@pytest.mark.parametrize("objective", [token_boundary, span_permutation])
def test_cross_entropies_and_their_gradients_equal_the_plain_form(objective):
    torch.manual_seed(0)
    logits = torch.randn(7, 6, requires_grad=True)
    labels = torch.tensor([0, 5, 3, 3, 1, 0, 2])
    term = objective(logits, labels)
    plain = plain_cross_entropy(logits.double(), labels)
    torch.testing.assert_close(term.loss_sum.double(), plain, rtol=1e-6, atol=1e-6)
    ours, theirs = (torch.autograd.grad(loss, logits)[0] for loss in (term.loss_sum, plain))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert term.count == 7
    assert term.correct.item() == (logits.argmax(dim=1) == labels).sum().item()


def test_accuracy_of_the_permutations_is_kept_by_class():
    logits = torch.eye(6)[[0, 0, 2, 5]]
    term = span_permutation(logits, torch.tensor([0, 1, 2, 2]))
    assert term.extra["class_correct"].tolist() == [1, 0, 1, 0, 0, 0]
    assert term.extra["class_count"].tolist() == [1, 1, 2, 0, 0, 0]


def test_no_example_gives_a_loss_of_zero_with_a_graph():
    logits = torch.randn(3, 6, requires_grad=True)
    term = span_permutation(logits[:0], torch.zeros(0, dtype=torch.int64))
    assert (term.loss_sum.item(), term.count, term.correct.item()) == (0.0, 0, 0.0)
    term.loss_sum.backward()
    assert torch.equal(logits.grad, torch.zeros(3, 6))


def test_16_bit_logits_are_summed_in_float32():
    logits = torch.randn(4000, 6).bfloat16()
    labels = torch.zeros(4000, dtype=torch.int64)
    term = token_boundary(logits, labels)
    assert term.loss_sum.dtype == torch.float32
    torch.testing.assert_close(term.loss_sum.double(), plain_cross_entropy(logits.double(), labels), rtol=1e-5, atol=0)


SIZE, TEMPERATURE = 5, 0.2
QUEUE_IDS = torch.tensor([11, 12, 13, 14, 15, 16, 12, 99])


def contrastive_inputs(normalize, queue_dtype=torch.float32):
    torch.manual_seed(0)
    queries, positives = torch.randn(3, SIZE, requires_grad=True), torch.randn(3, SIZE)
    queue = torch.randn(8, SIZE)
    if normalize:
        queue = torch.nn.functional.normalize(queue, dim=1)
    return queries, positives, queue.to(queue_dtype), torch.tensor([12, 50, 13])


def plain_contrastive(queries, positives, queue, fill, sentence_ids, normalize):
    """METHOD's CSPO, one query at a time in float64: (loss, correct)."""
    loss, correct = torch.zeros((), dtype=torch.float64), 0
    for query, positive, sentence in zip(queries.double(), positives.double(), sentence_ids, strict=True):
        if normalize:
            query, positive = query / query.norm(), positive / positive.norm()
        negatives = [queue[i].double() @ query for i in range(fill) if QUEUE_IDS[i] != sentence]
        scores = torch.stack([positive @ query, *negatives]) / TEMPERATURE
        loss = loss - scores[0] + torch.logsumexp(scores, 0)
        correct += bool(negatives) and bool((scores[0] > scores[1:]).all())
    return loss, correct


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("fill", [0, 1, 2, 7, 8])
@pytest.mark.parametrize("queue_dtype", [torch.float32, torch.bfloat16])
def test_infonce_and_its_gradient_equal_the_plain_form(normalize, fill, queue_dtype):
    queries, positives, queue, ids = contrastive_inputs(normalize, queue_dtype)
    term = contrastive(queries, positives, queue, fill, ids, QUEUE_IDS, TEMPERATURE, normalize)
    plain, correct = plain_contrastive(queries, positives, queue, fill, ids, normalize)
    torch.testing.assert_close(term.loss_sum.double(), plain, rtol=1e-5, atol=1e-5)
    ours, theirs = (torch.autograd.grad(loss, queries, allow_unused=True)[0] for loss in (term.loss_sum, plain))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert (term.count, term.correct.item()) == (3, correct)


def test_the_fill_may_be_a_tensor():
    queries, positives, queue, ids = contrastive_inputs(True)
    terms = [
        contrastive(queries, positives, queue, fill, ids, QUEUE_IDS, TEMPERATURE, True) for fill in (5, torch.tensor(5))
    ]
    assert terms[0].loss_sum.item() == terms[1].loss_sum.item()


def test_an_empty_queue_gives_no_loss_no_ranked_query_and_a_gradient_of_zero():
    queries, positives, queue, ids = contrastive_inputs(True)
    term = contrastive(queries, positives, queue, 0, ids, QUEUE_IDS, TEMPERATURE, True)
    assert (term.loss_sum.item(), term.count, term.correct.item(), term.extra["ranked"].item()) == (0.0, 3, 0.0, 0.0)
    term.loss_sum.backward()
    assert torch.equal(queries.grad, torch.zeros_like(queries))


def test_a_positive_that_only_equals_a_negative_is_not_correct():
    vector = torch.eye(1, SIZE)
    term = contrastive(vector, vector, vector, 1, torch.tensor([1]), torch.tensor([2]), TEMPERATURE, True)
    assert term.correct.item() == 0.0 and term.loss_sum.item() == pytest.approx(math.log(2))


def test_similarities_are_those_before_the_temperature():
    queries, positives, queue, ids = contrastive_inputs(False)
    term = contrastive(queries, positives, queue, 8, ids, QUEUE_IDS, TEMPERATURE, False)
    allowed = QUEUE_IDS[None] != ids[:, None]
    negatives = (queries @ queue.T).masked_fill(~allowed, 0).sum(1) / allowed.sum(1)
    torch.testing.assert_close(term.extra["positive"], (queries * positives).sum().detach())
    torch.testing.assert_close(term.extra["negative"], negatives.sum().detach())
    assert term.extra["ranked"].item() == 3


def test_large_raw_products_keep_float32_precision_under_autocast():
    torch.manual_seed(0)
    queries, keys = torch.randn(4, 768), torch.randn(4, 768)
    queue, ids = torch.randn(64, 768), torch.arange(64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        term = contrastive(queries, keys, queue, 64, torch.arange(100, 104), ids, TEMPERATURE, False)
    scores = torch.cat([(queries * keys).double().sum(1, keepdim=True), queries.double() @ queue.double().T], 1)
    plain = plain_cross_entropy(scores / TEMPERATURE, torch.zeros(4, dtype=torch.int64))
    torch.testing.assert_close(term.loss_sum.double(), plain, rtol=1e-5, atol=1e-2)


def test_cspo_is_the_mean_of_its_two_directions():
    def term(value, correct):
        return Term(torch.tensor(value), 4, torch.tensor(correct), {"ranked": torch.tensor(4.0)})

    both = contrastive_span_pair(term(3.0, 1.0), term(5.0, 2.0))
    assert (both.loss_sum.item(), both.count, both.correct.item(), both.extra["ranked"].item()) == (4.0, 4, 1.5, 4.0)


def test_total_divides_by_global_counts_and_undoes_the_engines_averages():
    terms = {"tbo": Term(torch.tensor(6.0), 2, torch.tensor(0.0)), "spo": Term(torch.tensor(8.0), 4, torch.tensor(0.0))}
    weights = {"tbo": 0.5, "spo": 1.0, "cspo": 0.3}
    loss = total(terms, weights, {"tbo": 12, "spo": torch.tensor(16), "cspo": 9}, ranks=2, accumulation=3)
    assert loss.item() == pytest.approx(6 * (0.5 * 6 / 12 + 8 / 16))


def test_total_of_an_objective_without_any_example_is_zero():
    terms = {"tbo": Term(torch.tensor(0.0), 0, torch.tensor(0.0))}
    assert total(terms, {"tbo": 0.5}, {"tbo": 0}, ranks=4, accumulation=2).item() == 0.0
