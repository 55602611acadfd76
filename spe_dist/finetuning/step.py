"""One fine-tuning step: forward, backward, update."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

from torch import Tensor

from spe_dist.distributed.context import RankContext
from spe_dist.distributed.engine import TrainingEngine
from spe_dist.extraction.joint.batch import ExtractionBatch
from spe_dist.training.health.stragglers import OwnWork
from spe_dist.training.terms import StepOutcome, add_sums, seed_dropout, seeds_by_slot, total

WEIGHTS = {"detection": 1.0, "typing": 1.0, "relation": 1.0}  # METHOD: loss = detection + typing + relation


class FinetuneStep:
    """Runs batches through the engine; each rank has its share of a batch as one micro-batch."""

    def __init__(self, engine: TrainingEngine, context: RankContext, seed: int, dropout_seed: str = "auto") -> None:
        self.engine = engine
        self.context = context
        self.seed = seed
        self.by_slot = seeds_by_slot(dropout_seed, context.device)
        self.own_work = OwnWork(context.device)
        self._forward_clock = nullcontext() if engine.zero_stage == 3 else self.own_work  # it waits for others' weights

    def __call__(self, step: int, rates: Sequence[float], batch: ExtractionBatch, gold_entities: Tensor) -> StepOutcome:
        """Train on this rank's part of a batch. `rates`: one for each parameter group.

        Each loss is its sum over the whole batch divided by the number of its examples on all ranks, so that the
        result does not depend on how the batch is cut. How many there are is known after the forward only: spans and
        pairs are chosen by what the model predicts.
        """
        seed_dropout(self.seed, step, 0 if self.by_slot else self.context.rank)
        if not self.by_slot:
            batch = replace(batch, dropout_keys=None)
        self.context.begin_step(step)
        self.engine.set_learning_rates(rates)
        with self._forward_clock:
            outputs = self.engine(batch.to(self.context.device), gold_entities)
        terms = outputs.terms
        counts = dict(zip(terms, map(int, self.context.sum_numbers([t.count for t in terms.values()])), strict=True))
        self.engine.backward(outputs.anchor + total(terms, WEIGHTS, counts, self.context.ranks, accumulation=1))
        self.engine.step()
        sums: dict[str, Tensor] = {}
        add_sums(sums, terms)
        return StepOutcome(self.engine.was_step_applied(), counts, sums, self.own_work.take())
