"""What dropout is drawn from where it does not depend on ranks and micro-batches (METHOD, Total loss).

Each sequence has a key, a pure function of (seed, step, its place in the global batch). `spe_dist.model.dropout` makes
of it keys of tokens, words and spans, and of these the masks. Where a packed kernel draws by its own generator, by the
number of the sequence that it is given, that number is the place too.

Legend of the shape suffixes: Q sequences
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from spe_dist.utils import randomness
from spe_dist.utils.randomness import Purpose


@dataclass(frozen=True)
class DropoutKeys:
    """Keys of the sequences of a micro-batch."""

    key_Q: Tensor  # int32
    place_Q: Tensor  # int64, ascending: 0 .. places - 1, as if one micro-batch held the global batch
    places: int  # the same in all micro-batches and ranks of a run
    shared_key: int  # of what all sentences of a step share: empty contexts

    @classmethod
    def of(cls, seed: int, step: int, place_Q: np.ndarray, places: int) -> DropoutKeys:
        """The keys of sequences at these places of a step's global batch."""
        key_Q = _draw(seed, step, place_Q)
        shared_key = int(_draw(seed, step, np.array([-1]))[0])
        return cls(torch.from_numpy(key_Q), torch.from_numpy(place_Q.astype(np.int64)), places, shared_key)

    def map(self, function: Callable[[Tensor], Tensor]) -> DropoutKeys:
        """The same with `function` applied to each tensor."""
        return replace(self, key_Q=function(self.key_Q), place_Q=function(self.place_Q))

    def first(self, n_sequences: int) -> DropoutKeys:
        """Those of the first sequences."""
        return replace(self, key_Q=self.key_Q[:n_sequences], place_Q=self.place_Q[:n_sequences])


def _draw(seed: int, step: int, place_Q: np.ndarray) -> np.ndarray:
    bits_Q = randomness.draws(randomness.keys(seed, step, place_Q), Purpose.DROPOUT)
    return (bits_Q >> np.uint64(32)).astype(np.uint32).view(np.int32)
