"""InfoNCE as it is read in METHOD: a score for every query and key at once, autograd for the gradient."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from spe_dist.training.terms import Term


def plain_contrast(
    queries_BC: Tensor,
    positive_keys_BC: Tensor,
    queue_keys_KC: Tensor,
    fill: int,
    ids_B: Tensor,
    queue_ids_K: Tensor,
    temperature: float,
    normalize: bool,
) -> Term:
    """What `contrastive` gives, in the type of the queries."""
    if normalize:
        queries_BC, positive_keys_BC = F.normalize(queries_BC, dim=1), F.normalize(positive_keys_BC, dim=1)
    positive_B1 = (queries_BC * positive_keys_BC).sum(dim=1, keepdim=True)
    negative_BK = queries_BC @ queue_keys_KC[:fill].to(queries_BC).T
    allowed_BK = queue_ids_K[None, :fill] != ids_B[:, None]
    logits_B1K = torch.cat([positive_B1, negative_BK.masked_fill(~allowed_BK, -torch.inf)], dim=1) / temperature
    loss_sum = (torch.logsumexp(logits_B1K, dim=1) - logits_B1K[:, 0]).sum()
    with torch.no_grad():
        n_negatives_B = allowed_BK.sum(dim=1)
        mean_negative_B = negative_BK.masked_fill(~allowed_BK, 0).sum(dim=1) / n_negatives_B.clamp(min=1)
        above_B = (logits_B1K[:, :1] > logits_B1K[:, 1:]).all(dim=1) & (n_negatives_B > 0)
        unit_BC = F.normalize(queries_BC, dim=1)
        extra = {
            "ranked": (n_negatives_B > 0).float().sum(),
            "positive": positive_B1.sum(),
            "negative": mean_negative_B.sum(),
            "spread": unit_BC.std(dim=0, correction=0).mean() * queries_BC.shape[0],
        }
    return Term(loss_sum, queries_BC.shape[0], above_B.float().sum(), extra)
