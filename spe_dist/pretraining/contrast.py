"""InfoNCE against a queue of keys in one pass, piece by piece, without a score for every query and key at once.

The softmax over a row of scores is summed up while the queue goes by: the largest score so far, the sum of exponents
relative to it, and the sum of keys weighted by them, which are rescaled where a larger score comes. At the end

    loss = log(sum) + largest - positive,    gradient of the query = (weighted keys / sum - positive key) / temperature,

so the queue is read once a step, while a piece of it is in the cache, and the backward pass multiplies nothing.

Legend of the shape suffixes:
    B queries, C width of queries and keys, K keys of the queue, N keys of a piece
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spe_dist.model.products import ProductType, add_product, as_factor, product

PIECE_KEYS_CPU = 2_048  # scores and keys of a piece stay in a core's second-level cache
PIECE_SCORES_GPU = 1 << 23  # 32 MiB: few launches, and most of the scores stay in the cache of a data-centre GPU


@dataclass(frozen=True)
class Negatives:
    """What queries are compared with, and which of it counts: filled slots of other texts than the query's.

    An id stands for a text: equal sentences have the same one.
    """

    keys_KC: Tensor
    ids_K: Tensor  # text of each key
    fill: int | Tensor  # slots from here on are empty
    ids_B: Tensor  # text of each query

    @property
    def on_cpu(self) -> bool:
        return self.keys_KC.device.type == "cpu"

    def filled(self) -> Negatives:
        """Those in filled slots where that can be read without waiting for the device, else all."""
        if not self.on_cpu and isinstance(self.fill, Tensor):
            return self
        fill = int(self.fill)
        return Negatives(self.keys_KC[:fill], self.ids_K[:fill], fill, self.ids_B)

    def pieces(self, piece_keys: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Keys [N, C] with what is excluded of them, [B, N], None where nothing is.

        A CPU looks for the few pieces that hold keys of the queries' own texts; elsewhere that would wait.
        """
        n_keys = self.ids_K.shape[0]
        own_K = self._own_keys() if self.on_cpu else None
        empty_K = torch.arange(n_keys, device=self.ids_K.device) >= self.fill if own_K is None else None
        for start in range(0, n_keys, piece_keys):
            stop = min(start + piece_keys, n_keys)
            keys_NC = self.keys_KC[start:stop]
            if own_K is not None and not own_K[start:stop].any():
                yield keys_NC, None
                continue
            excluded_BN = self.ids_K[None, start:stop] == self.ids_B[:, None]
            if empty_K is not None:
                excluded_BN |= empty_K[start:stop]
            yield keys_NC, excluded_BN

    def _own_keys(self) -> Tensor:
        """Whether a key is of any query's text, [K]."""
        sorted_B = self.ids_B.sort().values
        place_K = torch.searchsorted(sorted_B, self.ids_K).clamp_(max=sorted_B.shape[0] - 1)
        return sorted_B[place_K] == self.ids_K


class QueueLoss(NamedTuple):
    """Of each query, [B]; all but the loss are without gradient."""

    loss_B: Tensor
    positive_B: Tensor  # similarity to its own key, before the temperature
    negative_sum_B: Tensor  # of the similarities to all negatives
    n_negatives_B: Tensor  # int64
    correct_B: Tensor  # bool: it has a negative and is nearer to its own key than to all of them


def queue_loss(
    queries_BC: Tensor,
    positive_keys_BC: Tensor,
    negatives: Negatives,
    temperature: float,
    products: ProductType = "float32",
    piece_keys: int | None = None,
) -> QueueLoss:
    """Cross-entropy of each query's own key against the negatives (METHOD, CSPO with MoCo).

    Args:
        queries_BC: float32; alone has a gradient.
        positive_keys_BC: float32.
        negatives: the queue.
        temperature: divisor of the similarities.
        products: type of the products with the queue; the positive's and all sums are float32.
        piece_keys: keys of the queue taken at once; none: as many as the device's cache suggests.
    """
    if piece_keys is None:
        piece_keys = suggested_piece_keys(negatives)
    return QueueLoss(
        *_QueueLoss.apply(queries_BC, positive_keys_BC.detach(), negatives.filled(), temperature, products, piece_keys)
    )


def suggested_piece_keys(negatives: Negatives) -> int:
    """As many keys as the device's cache suggests for so many queries."""
    if negatives.on_cpu:
        return PIECE_KEYS_CPU
    return max(PIECE_KEYS_CPU, PIECE_SCORES_GPU // max(1, negatives.ids_B.shape[0]))


class Sums(NamedTuple):
    """What a pass over keys has summed up of each query's scores; a score is a product of scaled query and key."""

    largest_B: Tensor  # that the exponents are relative to
    sum_B: Tensor  # of exponents
    weighted_BC: Tensor  # sum of keys, weighted by exponents
    nearest_B: Tensor  # largest score of a negative, -inf without one
    scores_sum_B: Tensor  # of negatives
    n_negatives_B: Tensor  # int64


def pass_over(
    scaled_BC: Tensor,
    negatives: Negatives,
    begin: tuple[Tensor, Tensor, Tensor],
    products: ProductType,
    piece_keys: int,
) -> Sums:
    """Sums over all pieces of the negatives, without a gradient; `begin`: largest, sum and weighted keys to start with.

    `scaled_BC`: queries divided by the temperature. The weighted keys to start with are written to.
    """
    largest_B, sum_B, weighted_BC = begin
    nearest_B = torch.full_like(largest_B, -torch.inf)
    scores_sum_B = torch.zeros_like(largest_B)
    n_excluded_B = torch.zeros_like(negatives.ids_B)
    for keys_NC, excluded_BN in negatives.pieces(piece_keys):
        keys_NC = as_factor(keys_NC, products)
        scores_BN = product(scaled_BC, keys_NC.T, products)
        if excluded_BN is not None:
            n_excluded_B += excluded_BN.sum(dim=1)
            scores_BN.masked_fill_(excluded_BN, 0)
        scores_sum_B += scores_BN.sum(dim=1)
        if excluded_BN is not None:
            scores_BN.masked_fill_(excluded_BN, -torch.inf)
        nearest_B = torch.maximum(nearest_B, scores_BN.amax(dim=1))
        grown_B = torch.maximum(largest_B, nearest_B)
        scale_B = (largest_B - grown_B).exp_()
        exponents_BN = scores_BN.sub_(grown_B[:, None]).exp_()
        sum_B = torch.addcmul(exponents_BN.sum(dim=1), sum_B, scale_B)
        add_product(weighted_BC.mul_(scale_B[:, None]), exponents_BN, keys_NC, products)
        largest_B = grown_B
    return Sums(largest_B, sum_B, weighted_BC, nearest_B, scores_sum_B, negatives.ids_K.shape[0] - n_excluded_B)


def loss_of(
    ctx: Any, sums: Sums, positive_B: Tensor, positive_keys_BC: Tensor, temperature: float
) -> tuple[Tensor, ...]:
    """The fields of a `QueueLoss`, from sums that have the positive in them; keeps the gradient for `backward`."""
    loss_B = sums.sum_B.log().add_(sums.largest_B - positive_B)
    gradient_BC = sums.weighted_BC.div_(sums.sum_B[:, None]).sub_(positive_keys_BC).div_(temperature)
    ctx.save_for_backward(gradient_BC)
    correct_B = (positive_B > sums.nearest_B) & (sums.n_negatives_B > 0)
    rest = (positive_B * temperature, sums.scores_sum_B * temperature, sums.n_negatives_B, correct_B)
    ctx.mark_non_differentiable(*rest)
    return loss_B, *rest


class _QueueLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        queries_BC: Tensor,
        positive_keys_BC: Tensor,
        negatives: Negatives,
        temperature: float,
        products: ProductType,
        piece_keys: int,
    ) -> tuple[Tensor, ...]:
        scaled_BC = queries_BC / temperature
        positive_B = (scaled_BC * positive_keys_BC).sum(dim=1)
        begin = (positive_B, torch.ones_like(positive_B), positive_keys_BC.clone())
        sums = pass_over(scaled_BC, negatives, begin, products, piece_keys)
        return loss_of(ctx, sums, positive_B, positive_keys_BC, temperature)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_B: Tensor, *_: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        (gradient_BC,) = ctx.saved_tensors
        return grad_B[:, None] * gradient_BC, None, None, None, None, None
