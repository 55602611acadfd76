"""InfoNCE against queues whose keys are spread over the ranks (METHOD, CSPO with MoCo).

Every rank has the queries of all of them, and passes over its own part of the keys. What it has summed up of a query
goes back to that query's rank, which joins the parts r and its own key's score p, all relative to the largest m:

    loss = log(exp(p - m) + sum over r of exp(m_r - m) sum_r) + m - p

and the weighted keys, hence the gradient, likewise. Each rank has the loss and the gradient of its own queries; the
backward pass exchanges nothing. Collectives are handed in; each is called by all ranks, also by one without queries.

Legend of the shape suffixes:
    B queries of this rank, G of all ranks in rank order, R ranks, C width of queries and keys, X sums of a query
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spe_dist.moco import Collectives, ShardedKeyQueue
from spe_dist.model.devices import autocast
from spe_dist.model.products import ProductType
from spe_dist.pretraining.contrast import Negatives, QueueLoss, Sums, loss_of, pass_over, suggested_piece_keys
from spe_dist.pretraining.objectives import compared_vectors, contrast_term
from spe_dist.training.terms import Term

QUERIES_AT_ONCE = 4_096  # that pass over the keys together: bounds the scores that exist at once
FIGURES = 5  # of a query beside its weighted keys: largest, sum, nearest, sum of scores, number of negatives


class ShardedContrast:
    """The contrast of one micro-batch: made once its queries are there, which then go to all ranks meanwhile.

    Building it and `terms` are collectives.
    """

    def __init__(
        self,
        collectives: Collectives,
        queries: Sequence[Tensor],
        ids_B: Tensor,
        sizes: Sequence[int],
        temperature: float,
        normalize: bool,
        products: ProductType = "float32",
    ) -> None:
        """Send the queries on their way.

        Args:
            collectives: of all ranks.
            queries: [B, C] for each direction.
            ids_B: text of each query.
            sizes: queries of each rank in this micro-batch.
            temperature: divisor of the similarities.
            normalize: scale queries and positive keys to unit length; the queues' are so already.
            products: type of the products with the queues.
        """
        self._collectives, self._sizes = collectives, list(sizes)
        self._temperature, self._normalize, self._products = temperature, normalize, products
        with autocast(queries[0].device, enabled=False):
            self._vectors = [compared_vectors(queries_BC, normalize) for queries_BC in queries]
            scaled = torch.cat([queries_BC.detach() for queries_BC, _ in self._vectors], dim=1) / temperature
        self._width = scaled.shape[1]
        self._scaled = collectives.start_gather(scaled.reshape(-1), [size * self._width for size in sizes])
        self._ids = collectives.start_gather(ids_B, self._sizes)

    def terms(self, positive_keys: Sequence[Tensor], queues: Sequence[ShardedKeyQueue]) -> list[Term]:
        """The loss of each direction against the queue with negatives for it, as `objectives.contrastive` gives it."""
        ids_G = self._ids.wait()
        scaled = self._scaled.wait().view(-1, self._width).chunk(len(queues), dim=1)
        terms = []
        with autocast(ids_G.device, enabled=False):
            for (queries_BC, unit_BC), keys_BC, scaled_GC, queue in zip(
                self._vectors, positive_keys, scaled, queues, strict=True
            ):
                keys_BC, _ = compared_vectors(keys_BC.detach(), self._normalize)
                mine_GX = _sums_over_part(scaled_GC.contiguous(), ids_G, queue, self._products)
                parts_RBX = self._collectives.exchange_rows(mine_GX, self._sizes)
                of_B = QueueLoss(*_JoinedLoss.apply(queries_BC, keys_BC, parts_RBX, self._temperature))
                terms.append(contrast_term(of_B, unit_BC))
        return terms


@torch.no_grad()
def _sums_over_part(scaled_GC: Tensor, ids_G: Tensor, queue: ShardedKeyQueue, products: ProductType) -> Tensor:
    """Of each query: keys of this rank's part weighted by exponents, and the figures; [G, C + FIGURES]."""
    rows = [scaled_GC.new_empty(0, scaled_GC.shape[1] + FIGURES)]
    for scaled_BC, ids_B in zip(scaled_GC.split(QUERIES_AT_ONCE), ids_G.split(QUERIES_AT_ONCE), strict=True):
        if len(ids_B) == 0:
            continue
        negatives = Negatives(queue.keys_LC, queue.ids_L, queue.held, ids_B).filled()
        lowest_B = torch.full_like(scaled_BC[:, 0], torch.finfo(scaled_BC.dtype).min)  # -inf - -inf is no number
        begin = (lowest_B, torch.zeros_like(lowest_B), torch.zeros_like(scaled_BC))
        sums = pass_over(scaled_BC, negatives, begin, products, suggested_piece_keys(negatives))
        figures = [sums.largest_B, sums.sum_B, sums.nearest_B, sums.scores_sum_B, sums.n_negatives_B.to(lowest_B)]
        rows.append(torch.cat([sums.weighted_BC, torch.stack(figures, dim=1)], dim=1))
    return torch.cat(rows)


class _Parts(NamedTuple):
    largest_RB: Tensor
    sum_RB: Tensor
    nearest_RB: Tensor
    scores_sum_RB: Tensor
    n_negatives_RB: Tensor


class _JoinedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, queries_BC: Tensor, positive_keys_BC: Tensor, parts_RBX: Tensor, temperature: float
    ) -> tuple[Tensor, ...]:
        positive_B = (queries_BC / temperature * positive_keys_BC).sum(dim=1)
        weighted_RBC, figures = parts_RBX.split([queries_BC.shape[1], FIGURES], dim=2)
        of = _Parts(*figures.unbind(dim=2))
        largest_B = torch.maximum(positive_B, of.largest_RB.amax(dim=0))
        scale_RB = (of.largest_RB - largest_B).exp()
        own_B = (positive_B - largest_B).exp()
        sums = Sums(
            largest_B,
            (scale_RB * of.sum_RB).sum(dim=0) + own_B,
            (scale_RB[:, :, None] * weighted_RBC).sum(dim=0) + own_B[:, None] * positive_keys_BC,
            of.nearest_RB.amax(dim=0),
            of.scores_sum_RB.sum(dim=0),
            of.n_negatives_RB.sum(dim=0).round().long(),
        )
        return loss_of(ctx, sums, positive_B, positive_keys_BC, temperature)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_B: Tensor, *_: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        (gradient_BC,) = ctx.saved_tensors
        return grad_B[:, None] * gradient_BC, None, None, None
