"""What a training step is made of: named losses as sums and counts, their total, and what a step gives back.

A loss is summed over its examples; `total` divides by the counts of the whole global batch, so that the result does
not depend on how that batch is cut over ranks and micro-batches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from spe_dist.model.devices import autocast, is_gpu


@dataclass(frozen=True)
class Term:
    """One loss on one micro-batch. Sums add up over micro-batches and ranks; all but `loss_sum` are detached."""

    loss_sum: Tensor  # float32, 0-dim
    count: int
    correct: Tensor  # float32, 0-dim: examples whose best score is the right one
    extra: dict[str, Tensor] = field(default_factory=dict)  # further sums by name


@dataclass(frozen=True)
class StepOutcome:
    """What one step did. `sums` are this rank's, on its device, to be added over ranks."""

    applied: bool
    counts: dict[str, int]  # examples of each term over all ranks
    sums: dict[str, Tensor]
    own_s: Callable[[], float] = float  # seconds of work in which this rank waited for no other


def cross_entropy(logits_NC: Tensor, label_N: Tensor) -> Tensor:
    """Summed over N examples, in float32."""
    return F.cross_entropy(logits_NC.float(), label_N, reduction="sum")


CrossEntropy = Callable[[Tensor, Tensor], Tensor]


def classification(logits_NC: Tensor, label_N: Tensor, cross_entropy: CrossEntropy = cross_entropy) -> Term:
    """Cross-entropy of N examples over C classes, which may be a compiled one, outside of autocast."""
    with autocast(logits_NC.device, enabled=False):
        loss_sum = cross_entropy(logits_NC, label_N)
    return Term(loss_sum, label_N.shape[0], (logits_NC.detach().argmax(dim=1) == label_N).float().sum())


def total(
    terms: Mapping[str, Term],
    weights: Mapping[str, float],
    global_counts: Mapping[str, int],
    ranks: int,
    accumulation: int,
) -> Tensor:
    """What a micro-batch backpropagates: ranks x accumulation x sum of weight x local sum / max(global count, 1).

    The engine averages gradients over ranks and accumulation, which this undoes (METHOD, Total loss).
    """
    share = ranks * accumulation
    losses = [term.loss_sum * (share * weights[name] / max(global_counts[name], 1)) for name, term in terms.items()]
    return torch.stack(losses).sum()


def add_sums(sums: dict[str, Tensor], terms: dict[str, Term]) -> None:
    """Add each term's sums as 1-d float64 tensors under `objective/sum`, all of them in a few operations."""
    values = {
        f"{name}/{key}": value.detach().reshape(-1)
        for name, term in terms.items()
        for key, value in {"loss": term.loss_sum, "correct": term.correct, **term.extra}.items()
    }
    joined = torch.cat(list(values.values())).double()
    further = dict(zip(values, joined.split([value.shape[0] for value in values.values()]), strict=True))
    if sums.keys() != further.keys():
        assert not sums, "micro-batches of a step have the same terms"
        sums.update(further)
    else:
        torch._foreach_add_(list(sums.values()), list(further.values()))


def seeds_by_slot(dropout_seed: str, device: torch.device) -> bool:
    """Whether dropout is drawn from keys of the sentences' slots, by the setting `dropout_seed`."""
    return dropout_seed == "slot" or (dropout_seed == "auto" and not is_gpu(device))


def seed_dropout(seed: int, step: int, rank: int = 0) -> None:
    """Seed torch's generators for one step of one rank, so that dropout depends on nothing that ran before.

    Where dropout is seeded by slots, once a micro-batch and without a rank: packed attention draws by the generator.
    """
    digest = hashlib.sha256(f"dropout/{seed}/{step}/{rank}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
