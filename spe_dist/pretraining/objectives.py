"""The objectives as named sums and counts (METHOD, CSPO and Total loss; paper 3.2).

Each function returns a `Term`: the loss summed over its examples and their number; `spe_dist.training.terms.total`
adds them up. Everything runs in float32 outside of autocast; `contrast_dtype` sets the type of contrast's products.

Legend of the shape suffixes:
    B sentences, M token boundary targets, Y targets of masked language modelling, P permuted spans, V vocabulary,
    O = 6 orders, C width of queries and keys, K keys of a queue
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from spe_dist.data.batches.packed import PackedBatch
from spe_dist.model.devices import autocast
from spe_dist.model.heads import PERMUTATIONS
from spe_dist.model.products import ProductType
from spe_dist.model.spe import PretrainingOutputs
from spe_dist.pretraining.contrast import Negatives, QueueLoss, queue_loss
from spe_dist.training.terms import CrossEntropy, Term, classification, cross_entropy


def token_boundary(logits_MV: Tensor, label_M: Tensor, cross_entropy: CrossEntropy = cross_entropy) -> Term:
    """TBO: cross-entropy of the hidden pieces."""
    return classification(logits_MV, label_M, cross_entropy)


def span_permutation(logits_PO: Tensor, label_P: Tensor, cross_entropy: CrossEntropy = cross_entropy) -> Term:
    """SPO: cross-entropy of the orders; `extra` has class_correct and class_count, [6] each."""
    correct_P = logits_PO.detach().argmax(dim=1) == label_P
    zeros_O = torch.zeros(PERMUTATIONS, device=label_P.device)
    extra = {
        "class_correct": zeros_O.index_add(0, label_P, correct_P.float()),
        "class_count": zeros_O.index_add(0, label_P, torch.ones_like(label_P, dtype=torch.float32)),
    }
    return replace(classification(logits_PO, label_P, cross_entropy), extra=extra)


def prediction_terms(
    outputs: PretrainingOutputs, batch: PackedBatch, cross_entropy: CrossEntropy = cross_entropy
) -> dict[str, Term]:
    """TBO, SPO and MLM of a micro-batch, those that are on; `cross_entropy` may be a compiled one."""
    terms = {}
    if outputs.tbo_logits_MV is not None:
        terms["tbo"] = token_boundary(outputs.tbo_logits_MV, batch.tbo_label_M, cross_entropy)
    if outputs.spo_logits_PO is not None:
        terms["spo"] = span_permutation(outputs.spo_logits_PO, batch.spo_label_P, cross_entropy)
    if outputs.mlm_logits_YV is not None:
        terms["mlm"] = classification(outputs.mlm_logits_YV, batch.mlm_label_Y, cross_entropy)
    return terms


def contrastive(
    queries_BC: Tensor,
    positive_keys_BC: Tensor,
    queue_keys_KC: Tensor,
    fill: int | Tensor,
    ids_B: Tensor,
    queue_ids_K: Tensor,
    temperature: float,
    normalize: bool,
    products: ProductType = "float32",
) -> Term:
    """InfoNCE in one direction: each query against its own key and the filled part of the other view's queue.

    Slots from `fill` on and keys of the query's own text are no negatives. With `normalize`, queries and
    positive keys are scaled to unit length here; the queue holds keys that are so already. `products`: type of the
    products with the queue. `extra`: `ranked` queries that have a negative (only those can be correct: positive
    strictly above all negatives), sums over the queries of `positive` similarity and of the mean `negative` similarity
    (before the temperature), and `spread`: B times the mean over the dimensions of the standard deviation of the
    unit-length queries.
    """
    with autocast(queries_BC.device, enabled=False):
        queries_BC, unit_BC = compared_vectors(queries_BC, normalize)
        positive_keys_BC, _ = compared_vectors(positive_keys_BC.detach(), normalize)
        negatives = Negatives(queue_keys_KC.detach(), queue_ids_K, fill, ids_B)
        of_B = queue_loss(queries_BC, positive_keys_BC, negatives, temperature, products)
        return contrast_term(of_B, unit_BC)


def compared_vectors(vectors_BC: Tensor, normalize: bool) -> tuple[Tensor, Tensor]:
    """Queries or positive keys as they are compared, and at unit length, in float32 at least."""
    vectors_BC = vectors_BC if vectors_BC.dtype == torch.float64 else vectors_BC.float()
    unit_BC = F.normalize(vectors_BC, dim=1)
    return (unit_BC if normalize else vectors_BC), unit_BC


def contrast_term(of_B: QueueLoss, unit_BC: Tensor) -> Term:
    """The sums over the queries of a loss, with `extra` as in `contrastive`; `unit_BC`: queries at unit length."""
    queries = unit_BC.shape[0]
    spread = unit_BC.detach().std(dim=0, correction=0).mean() * queries if queries else unit_BC.new_zeros(())
    extra = {
        "ranked": (of_B.n_negatives_B > 0).float().sum(),
        "positive": of_B.positive_B.sum(),
        "negative": (of_B.negative_sum_B / of_B.n_negatives_B.clamp(min=1)).sum(),
        "spread": spread,
    }
    return Term(of_B.loss_B.sum(), queries, of_B.correct_B.float().sum(), extra)


def contrastive_span_pair(pair: Term, context: Term) -> Term:
    """CSPO: the mean of both directions, per sentence; sums of `correct` and `extra` are halved alike."""
    assert pair.count == context.count
    extra = {name: (pair.extra[name] + context.extra[name]) / 2 for name in pair.extra}
    return Term((pair.loss_sum + context.loss_sum) / 2, pair.count, (pair.correct + context.correct) / 2, extra)
