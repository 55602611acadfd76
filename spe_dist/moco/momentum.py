"""Key encoder and both queues together: what follows an applied step, and what a checkpoint keeps of it.

Legend of the shape suffixes:
    B sentences of this rank's part of a global batch, in slot order; C width of a key
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from spe_dist.errors import DivergenceError
from spe_dist.moco.checksums import check_equal
from spe_dist.moco.encoder import Collectives, MomentumKeyEncoder
from spe_dist.moco.fragments import Fragment, FragmentSource
from spe_dist.moco.queue import KeyQueue
from spe_dist.moco.sharded_queue import ShardedKeyQueue

AnyQueue = KeyQueue | ShardedKeyQueue
ComparedIds = Literal["texts", "sentences"]
_COMPARED = "queue_ids"


class MomentumContrast:
    """A key encoder with a queue of span-pair keys and one of context keys (METHOD, CSPO with MoCo).

    `compared`: whose ids the queues hold, and which are no negatives of each other: sentences with equal pieces, or, in
    a run that an earlier version began, one and the same sentence.
    """

    def __init__(self, key_encoder: MomentumKeyEncoder, pair_queue: AnyQueue, context_queue: AnyQueue) -> None:
        self.key_encoder = key_encoder
        self.pair_queue = pair_queue
        self.context_queue = context_queue
        self.compared: ComparedIds = "texts"
        self.collectives: Collectives = key_encoder.collectives

    @property
    def key_module(self) -> Any:
        """The module that makes keys: f_k."""
        return self.key_encoder.module

    def start(self) -> None:
        """Key encoder = exact copy of the query; the queues are empty."""
        self.key_encoder.start()

    def follow(self) -> None:
        """Momentum update of the key encoder; after applied steps only. The next use of `key_module` waits for it."""
        self.key_encoder.follow()

    @torch.no_grad()
    def enqueue(self, pair_keys_BC: Tensor, context_keys_BC: Tensor, ids_B: Tensor) -> None:
        """Gather the keys of a step in rank order and add them to the queues; after applied steps only; a collective.

        Every rank gives the keys of all its micro-batches joined in slot order, the same number on each rank.
        """
        size = pair_keys_BC.shape[1]
        both = torch.cat([pair_keys_BC, context_keys_BC], dim=1).to(self.pair_queue.dtype)
        both = self.collectives.all_gather_rows(both)
        ids = self.collectives.all_gather_rows(ids_B)
        self.pair_queue.enqueue(both[:, :size], ids)
        self.context_queue.enqueue(both[:, size:], ids)

    def check_equal(self) -> None:
        """Raise DivergenceError unless key encoder and queues are bit-equal on all ranks; a collective.

        Of sharded queues, what entered them is compared, and each rank's part with what it has written into it.
        """
        named = {f"key encoder {name}": tensor for name, tensor in self.key_encoder.named_tensors().items()}
        for label, queue in self._labelled():
            named.update({f"{label} {name}": tensor for name, tensor in queue.compared_tensors().items()})
        check_equal(self.collectives, named)
        for label, queue in self._labelled():
            if not isinstance(queue, ShardedKeyQueue):
                continue
            whole = self.collectives.all_gather_object(queue.is_as_written())
            if not all(whole):
                ranks = [rank for rank, is_whole in enumerate(whole) if not is_whole]
                raise DivergenceError(
                    f"the keys that ranks {ranks} hold of the {label} are not what was written there; check the memory "
                    "of their machines, and resume from the newest checkpoint"
                )

    def _labelled(self) -> list[tuple[str, AnyQueue]]:
        return [("pair queue", self.pair_queue), ("context queue", self.context_queue)]

    def fragments(self) -> list[Fragment]:
        """What this rank's checkpoint keeps: its part of average and compensation, and of both queues."""
        queued = [f for name, queue in self._queues() for f in queue.fragments(name, self.collectives)]
        return self.key_encoder.fragments() + queued

    def values(self) -> dict[str, Any]:
        """What the ids of the queues are of; all else of the state is in tensors."""
        return {_COMPARED: self.compared}

    def load(self, source: FragmentSource) -> None:
        """Continue exactly from a checkpoint of any number of ranks and layout of average and queues; a collective.

        Raises:
            CheckpointError: it is of another network or has queues of another size.
        """
        for name, queue in self._queues():
            queue.load(name, source, self.collectives)
        self.compared = "texts" if source.values.get(_COMPARED) == "texts" else "sentences"
        self.key_encoder.load(source)

    def _queues(self) -> tuple[tuple[str, AnyQueue], ...]:
        return ("pair_queue", self.pair_queue), ("context_queue", self.context_queue)
