"""One training step: forward, backward, update, and what follows an applied update.

Legend of the shape suffixes:
    B sentences, C width of queries and keys
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import cast

import torch
from torch import Tensor

from spe_dist.config.pretraining import Config
from spe_dist.data.batches.packed import PackedBatch
from spe_dist.distributed.context import RankContext
from spe_dist.distributed.engine import TrainingEngine
from spe_dist.moco import KeyQueue, MomentumContrast, ShardedKeyQueue
from spe_dist.model.kernels import compiled
from spe_dist.model.products import product_type
from spe_dist.model.spe import Freezing, PretrainingModel, PretrainingOutputs
from spe_dist.pretraining.objectives import contrastive, contrastive_span_pair, prediction_terms
from spe_dist.pretraining.sharded_contrast import ShardedContrast
from spe_dist.training.health.stragglers import OwnWork
from spe_dist.training.rates.groups import StepRates
from spe_dist.training.terms import (
    CrossEntropy,
    StepOutcome,
    Term,
    add_sums,
    cross_entropy,
    seed_dropout,
    seeds_by_slot,
    total,
)

TERMS = ("tbo", "spo", "cspo", "mlm")


class TrainingStep:
    """Runs global batches through engine and MoCo.

    `stop_agreed` is called at the end of each micro-batch on all ranks alike and says whether all of them stop now.
    """

    def __init__(
        self,
        engine: TrainingEngine,
        moco: MomentumContrast | None,
        config: Config,
        context: RankContext,
        stop_agreed: Callable[[], bool] = lambda: False,
    ) -> None:
        self.engine = engine
        self.moco = moco
        self.config = config
        self.context = context
        self.stop_agreed = stop_agreed
        self.own_work = OwnWork(context.device)
        self._forward_clock = nullcontext() if engine.zero_stage == 3 else self.own_work  # it waits for others' weights
        objectives = config.objectives
        self._cross_entropy: CrossEntropy = compiled(cross_entropy) if config.train.compile else cross_entropy
        self.weights = {
            "tbo": objectives.tbo_weight,
            "spo": objectives.spo_weight,
            "cspo": objectives.cspo_weight,
            "mlm": objectives.mlm_weight,
        }

    def __call__(
        self,
        step: int,
        learning_rate: float,
        micro_batches: Sequence[PackedBatch],
        of_groups: StepRates | None = None,
    ) -> StepOutcome | None:
        """Train on this rank's part of a global batch; None where a stop was agreed before its end (dropped).

        `of_groups`: the rates of the parameter groups, in place of the one rate.
        """
        self.context.begin_step(step)
        self.own_work.take()  # of a step that was dropped
        counts, sizes = self.global_counts(micro_batches)
        seed_dropout(self.config.train.seed, step, self.context.rank)
        micro_batches = self._with_dropout_keys(step, micro_batches)
        if of_groups is None:
            self.engine.set_learning_rate(learning_rate)
        else:
            self.engine.set_learning_rates(of_groups.groups)
            self._freeze_encoder(of_groups.encoder_is_frozen)
        sums: dict[str, Tensor] = {}
        keys: list[tuple[Tensor, Tensor, Tensor]] = []
        for i, micro_batch in enumerate(micro_batches):
            if micro_batch.dropout_keys is not None:
                seed_dropout(self.config.train.seed, step)
            batch = micro_batch.to(self.context.device, non_blocking=True)
            with self._forward_clock:
                outputs = self.engine(batch)
            sharded = self._send_queries(outputs, batch, sizes[i]) if sizes else None
            if self.moco is not None:
                key_module = self.moco.key_module  # waits for its weights
                with self.own_work:
                    keys.append((*key_module.keys(batch), self._compared_ids(batch)))
            terms = self.terms(outputs, batch, keys[-1] if keys else None, sharded)
            self.engine.backward(
                outputs.anchor + total(terms, self.weights, counts, self.context.ranks, len(micro_batches))
            )
            self.engine.step()
            add_sums(sums, terms)
            if self.stop_agreed() and i + 1 < len(micro_batches):
                return None
        applied = self.engine.was_step_applied()
        if applied and self.moco is not None:
            self.moco.enqueue(*(torch.cat(parts) for parts in zip(*keys, strict=True)))
            self.moco.follow()  # last: its exchange goes on until the next step makes keys
        return StepOutcome(applied, counts, sums, self.own_work.take())

    def _freeze_encoder(self, frozen: bool) -> None:
        """Without a backward pass through it where the engine does without its gradients, else with zeros for them."""
        how: Freezing | None = "skipped" if self.engine.takes_missing_gradients else "zero"
        cast(PretrainingModel, self.engine.module).freeze_encoder(how if frozen else None)

    def _with_dropout_keys(self, step: int, micro_batches: Sequence[PackedBatch]) -> Sequence[PackedBatch]:
        """The same, with what dropout is drawn from where it is seeded by slots."""
        config = self.config
        if config.model.dropout == 0 or not seeds_by_slot(config.train.dropout_seed, self.context.device):
            return micro_batches
        sizes = [micro_batch.n_sentences for micro_batch in micro_batches]
        first_slots = itertools.accumulate(sizes, initial=self.context.rank * sum(sizes))  # ranks own equal parts
        global_batch, copies = self.context.ranks * sum(sizes), config.corruption.permutations
        mlm = config.objectives.mlm
        return [
            micro_batch.with_dropout_keys(config.train.seed, step, first_slot, global_batch, copies, mlm)
            for micro_batch, first_slot in zip(micro_batches, first_slots, strict=False)
        ]

    def terms(
        self,
        outputs: PretrainingOutputs,
        batch: PackedBatch,
        keys: tuple[Tensor, Tensor, Tensor] | None,
        sharded: ShardedContrast | None = None,
    ) -> dict[str, Term]:
        """The objectives that are on, by name.

        `keys`: of span pairs, of contexts [B, C], and their ids. `sharded`: queries on their way to all ranks.
        """
        terms = prediction_terms(outputs, batch, self._cross_entropy)
        if keys is not None:
            assert self.moco is not None
            pair_keys_BC, context_keys_BC, _ = keys
            positive_keys, queues = (context_keys_BC, pair_keys_BC), (self.moco.context_queue, self.moco.pair_queue)
            if sharded is not None:
                directions = sharded.terms(positive_keys, cast(Sequence[ShardedKeyQueue], queues))
            else:
                directions = [
                    self._contrast(queries_BC, keys_BC, cast(KeyQueue, queue), batch)
                    for queries_BC, keys_BC, queue in zip(_queries(outputs), positive_keys, queues, strict=True)
                ]
            terms["cspo"] = contrastive_span_pair(*directions)
        return terms

    def _compared_ids(self, batch: PackedBatch) -> Tensor:
        """The ids by which keys are no negatives of a query, [B]."""
        assert self.moco is not None
        return batch.text_ids_B if self.moco.compared == "texts" else batch.sentence_ids_B

    def _send_queries(self, outputs: PretrainingOutputs, batch: PackedBatch, sizes: Sequence[int]) -> ShardedContrast:
        """Begin to give all ranks the queries of a micro-batch, of which each has `sizes[rank]`."""
        settings, queries = self.config.moco, _queries(outputs)
        products = product_type(settings.contrast_dtype, queries[0].device)
        ids_B = self._compared_ids(batch)
        return ShardedContrast(self.context, queries, ids_B, sizes, settings.temperature, settings.normalize, products)

    def _contrast(self, queries_BC: Tensor, positive_keys_BC: Tensor, queue: KeyQueue, batch: PackedBatch) -> Term:
        settings = self.config.moco
        return contrastive(
            queries_BC,
            positive_keys_BC,
            queue.keys_KC,
            queue.fill,
            self._compared_ids(batch),
            queue.ids_K,
            settings.temperature,
            settings.normalize,
            product_type(settings.contrast_dtype, queries_BC.device),
        )

    def global_counts(self, micro_batches: Sequence[PackedBatch]) -> tuple[dict[str, int], list[list[int]]]:
        """Of the whole global batch, by one small all-reduce: the examples of each of `TERMS`, and where queues are
        sharded, the sentences of each micro-batch by rank.
        """
        with_mlm = self.config.objectives.mlm
        local = [
            sum(batch.tbo_label_M.shape[0] for batch in micro_batches),
            sum(batch.spo_label_P.shape[0] for batch in micro_batches),
            sum(batch.n_sentences for batch in micro_batches),
        ]
        if with_mlm:
            local.append(sum(batch.mlm_label_Y.shape[0] for batch in micro_batches))
        rank, ranks = self.context.rank, self.context.ranks
        sharded = self.moco is not None and isinstance(self.moco.pair_queue, ShardedKeyQueue)
        for batch in micro_batches if sharded else ():
            local += [batch.n_sentences if r == rank else 0 for r in range(ranks)]
        tbo, spo, cspo, *sizes = map(int, self.context.sum_numbers(local))
        counts = {"tbo": tbo, "spo": spo, "cspo": cspo}
        if with_mlm:
            counts["mlm"], *sizes = sizes
        by_rank = [sizes[start : start + ranks] for start in range(0, len(sizes), ranks)]
        return counts, by_rank


def _queries(outputs: PretrainingOutputs) -> tuple[Tensor, Tensor]:
    """Of span pairs and of contexts, [B, C]."""
    assert outputs.pair_queries_BC is not None and outputs.context_queries_BC is not None
    return outputs.pair_queries_BC, outputs.context_queries_BC
