"""What was learned, measured on held-out sentences by yardsticks that need no reading (METHOD, held-out sentences).

Figures (all under `heldout/`; those of an objective that is off are absent):

| name | meaning |
|---|---|
| sentences, tbo_pieces, spo_spans, same_layout_sentences | how much was evaluated |
| tbo_nats, tbo_accuracy | token boundary targets: cross-entropy, share with the right piece first |
| tbo_count_model_nats, tbo_unigram_nats | the same targets under the counts of `count_model` |
| mlm_pieces, mlm_nats, mlm_accuracy | the pieces that masked language modelling hides |
| spo_nats, spo_accuracy, spo_accuracy_0 .. _5 | orders of permuted spans: cross-entropy, share right; by label |
| spo_entropy | entropy of these labels: what the best constant guess reaches |
| top1_random | share of queries whose own key is nearest among all sentences' keys; mean of both directions |
| top1_random_chance | 1 / sentences |
| top1_random_control | the same where every visible piece is one constant piece: what layout alone gives |
| top1_random_layout_oracle | what knowing exactly (words, s1, s2) of query and keys would give |
| top1_same_layout, _chance, _control | the same among sentences given equal (words, s1, s2); chance 1 / group |

A tie counts as 1 / (number of tied keys). With `view_masks=each` both views of a sentence show how many pieces its
hidden and shown spans have, which equal layouts in words do not level out: then read `top1_same_layout` against its
control, which sees the same numbers of pieces.

Legend of the shape suffixes:
    n sentences of a pass, G groups, E sentences of a group, C width of queries and keys, M targets
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spe_dist.config.pretraining import Config
from spe_dist.data.batches.packed import PackedBatch
from spe_dist.data.batches.stream import Store
from spe_dist.errors import DataError
from spe_dist.moco import Collectives
from spe_dist.model.spe import KeyEncoder, PretrainingOutputs, views_only
from spe_dist.pretraining.count_model import CountModel, sampled_blocks
from spe_dist.pretraining.held_out import HeldOutPass, HeldOutSentences
from spe_dist.pretraining.objectives import prediction_terms
from spe_dist.utils.files import write_atomically
from spe_dist.utils.reading.json_file import is_number, read_object
from spe_dist.utils.run_files import YARDSTICKS_FILE

Forward = Callable[[PackedBatch], PretrainingOutputs]

COUNTED_BLOCKS = 5_000  # blocks of training sentences that the count model reads, at most; each is a random sample
QUERIES_AT_ONCE = 1_024
ROUNDING = 1e-6  # of the largest similarity: float32 keys of one sequence in two batches differ by less


class _StopAgreed(Exception):
    """All ranks leave the evaluation here."""


class HeldOutEvaluation:
    """Evaluates a model again and again on the same held-out sentences, corrupted alike.

    `yardsticks`: what `count_yardsticks` gave; it is put beside the model's figures. `stop_agreed` is called at the end
    of each micro-batch on all ranks alike and says whether all of them stop now. Every rank builds one.
    """

    def __init__(
        self,
        store: Store,
        config: Config,
        collectives: Collectives,
        device: torch.device,
        micro_batch: int,
        yardsticks: dict[str, float],
        stop_agreed: Callable[[], bool] = lambda: False,
    ) -> None:
        self.config, self.collectives, self.device = config, collectives, device
        self.yardsticks, self.stop_agreed = yardsticks, stop_agreed
        sizes = config.train.evaluate_sentences, config.train.seed
        held_out = HeldOutSentences(store, config.corruption, *sizes, config.objectives)
        cut = (micro_batch, collectives.rank, collectives.ranks)
        self.sentences = held_out
        self._as_trained = held_out.as_trained(*cut)
        if config.objectives.cspo:
            self._retrieved = self._as_trained.map(_without_targets)
            self._one_layout = held_out.one_layout_a_group(*cut).map(_without_targets)

    def __call__(self, forward: Forward, key_module: KeyEncoder | None) -> dict[str, float] | None:
        """The figures of the table above, equal on all ranks; None where a stop was agreed. A collective.

        `forward` calls the model in eval mode (the engine at ZeRO-3, which gathers weights in it); `key_module` is
        None where CSPO is off.
        """
        was_training = key_module is not None and key_module.training
        try:
            if key_module is not None:
                key_module.eval()
            return self._figures(forward, key_module)
        except _StopAgreed:
            return None
        finally:
            if key_module is not None:
                key_module.train(was_training)

    def _figures(self, forward: Forward, key_module: KeyEncoder | None) -> dict[str, float]:
        if self.sentences.n_sentences == 0:
            return {}
        figures = {"heldout/sentences": float(self.sentences.n_sentences)}
        sums, embedded = self._run(self._as_trained, forward, key_module)
        objectives = self.config.objectives
        if objectives.tbo:
            figures |= {**self.yardsticks, **_prediction_figures(sums, "tbo")}
        if objectives.spo:
            figures |= _spo_figures(sums)
        if objectives.mlm:
            figures |= _prediction_figures(sums, "mlm")
        if key_module is not None:
            figures |= self._retrieval(embedded, forward, key_module)
        return figures

    def _retrieval(self, embedded: list[Tensor], forward: Forward, key_module: KeyEncoder) -> dict[str, float]:
        held_out = self.sentences
        everyone_1N = torch.arange(held_out.n_sentences, device=self.device)[None]
        _, blind = self._run(self._retrieved.map(held_out.without_words), forward, key_module)
        figures = {
            "heldout/top1_random": top1(embedded, everyone_1N),
            "heldout/top1_random_chance": 1.0 / held_out.n_sentences,
            "heldout/top1_random_control": top1(blind, everyone_1N),
            "heldout/top1_random_layout_oracle": _layout_oracle(held_out.layouts_N6),
        }
        groups, size = held_out.groups_GE.shape
        if groups:
            in_groups_GE = torch.arange(groups * size, device=self.device).view(groups, size)
            _, grouped = self._run(self._one_layout, forward, key_module)
            _, blind = self._run(self._one_layout.map(held_out.without_words), forward, key_module)
            figures |= {
                "heldout/same_layout_sentences": float(groups * size),
                "heldout/top1_same_layout": top1(grouped, in_groups_GE),
                "heldout/top1_same_layout_chance": 1.0 / size,
                "heldout/top1_same_layout_control": top1(blind, in_groups_GE),
            }
        return figures

    @torch.no_grad()
    def _run(
        self, held_out: HeldOutPass, forward: Forward, key_module: KeyEncoder | None
    ) -> tuple[dict[str, np.ndarray], list[Tensor]]:
        """Sums of the objectives over all ranks; queries and keys [n, C] of all sentences in order, see `top1`."""
        sums: dict[str, np.ndarray] = {}
        rows: list[Tensor] = []
        for batch, counted in zip(held_out.batches, held_out.counted, strict=True):
            batch = batch.to(self.device)
            outputs = forward(batch)
            embedded = None if key_module is None else self._embed(outputs, batch, key_module)  # perhaps a collective
            if counted:
                _add(sums, outputs, batch)
                if embedded is not None:
                    rows.append(embedded)
            if self.stop_agreed():
                raise _StopAgreed
        return self._sum_over_ranks(sums), self._gather(rows, held_out) if key_module is not None else []

    def _embed(self, outputs: PretrainingOutputs, batch: PackedBatch, key_module: KeyEncoder) -> Tensor:
        """Span-pair queries, context keys, context queries, span-pair keys side by side, [B, 4C] in float32."""
        pair_keys_BC, context_keys_BC = key_module.keys(batch)
        assert outputs.pair_queries_BC is not None and outputs.context_queries_BC is not None
        queries = [outputs.pair_queries_BC.float(), outputs.context_queries_BC.float()]
        if self.config.moco.normalize:
            queries = [F.normalize(queries_BC, dim=1) for queries_BC in queries]
        return torch.cat([queries[0], context_keys_BC.float(), queries[1], pair_keys_BC.float()], dim=1)

    def _gather(self, rows: list[Tensor], held_out: HeldOutPass) -> list[Tensor]:
        width = 4 * self.config.model.key_size
        local = torch.cat(rows) if rows else torch.empty(0, width, device=self.device)
        flat = self.collectives.all_gather_uneven(local.reshape(-1), [size * width for size in held_out.sizes])
        ordered = torch.empty(sum(held_out.sizes), width, device=self.device)
        ordered[held_out.row_of_gathered_n.to(self.device)] = flat.view(-1, width)
        return list(ordered.chunk(4, dim=1))

    def _sum_over_ranks(self, sums: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        by_rank = self.collectives.all_gather_object(sums)
        names = sorted({name for rank_sums in by_rank for name in rank_sums})
        return {name: np.sum([s[name] for s in by_rank if name in s], axis=0) for name in names}


def top1(embedded: list[Tensor], groups_GE: Tensor) -> float:
    """Share of queries that find their own key among the keys of their group; mean of both directions.

    `embedded`: span-pair queries, context keys, context queries, span-pair keys, [n, C] each. Keys that differ by
    rounding alone are tied: equal sequences of unlike batches do. Not a number where a similarity is not finite.
    """
    pair_queries, context_keys, context_queries, pair_keys = embedded
    credit = torch.zeros((), dtype=torch.float64, device=pair_queries.device)
    for queries_nC, keys_nC in ((pair_queries, context_keys), (context_queries, pair_keys)):
        for rows_E in groups_GE:
            keys_EC = keys_nC[rows_E]
            for own in torch.arange(len(rows_E), device=rows_E.device).split(QUERIES_AT_ONCE):
                similarity = queries_nC[rows_E[own]] @ keys_EC.T
                positive = similarity.gather(1, own[:, None])
                rounding = ROUNDING * similarity.abs().amax(dim=1, keepdim=True)
                tied = ((similarity - positive).abs() <= rounding).sum(dim=1)
                best = (similarity <= positive + rounding).all(dim=1)
                credit += (best.double() / tied.clamp(min=1)).sum() + 0.0 * similarity.sum(dtype=torch.float64)
    return float(credit) / (2 * groups_GE.numel())


def count_yardsticks(train: Store, held_out: Store, config: Config, folder: Path | None = None) -> dict[str, float]:
    """`heldout/tbo_count_model_nats` and `heldout/tbo_unigram_nats` of the token boundary targets; for rank 0.

    Kept in `folder`, under a hash of what they depend on, so that a resumed run does not count again.
    """
    if not config.objectives.tbo or held_out.n_sentences == 0:
        return {}
    depends_on = [train.manifest.hash(), asdict(config.corruption), config.train.evaluate_sentences, config.train.seed]
    key = hashlib.sha256(json.dumps([*depends_on, COUNTED_BLOCKS]).encode()).hexdigest()
    file = None if folder is None else folder / YARDSTICKS_FILE
    kept: dict[str, Any] = {}
    if file is not None and file.exists():
        with suppress(DataError, OSError):  # damaged: they are counted again
            kept = read_object(file, "remove it")
        figures = kept.get("figures")
        if kept.get("key") == key and isinstance(figures, dict) and all(map(is_number, figures.values())):
            return figures
    sentences = HeldOutSentences(held_out, config.corruption, config.train.evaluate_sentences, config.train.seed)
    model = CountModel.estimate(sampled_blocks(train, COUNTED_BLOCKS), train.manifest.vocabulary_size)
    first, offset, label = (np.concatenate(parts) for parts in zip(*map(_targets, _batches(sentences)), strict=True))
    if len(label) == 0:
        return {}
    figures = {
        "heldout/tbo_count_model_nats": float(model.nats(first, offset, label).mean()),
        "heldout/tbo_unigram_nats": float(model.unigram_nats(label).mean()),
    }
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps({"key": key, "figures": figures}, indent=1))
    return figures


def _batches(sentences: HeldOutSentences) -> list[PackedBatch]:
    return sentences.as_trained(micro_batch=1_024).batches


def _targets(batch: PackedBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First piece of the word, offset and hidden piece of each token boundary target."""
    first_M = batch.piece_ids_T[batch.tbo_first_piece_M]
    return first_M.numpy(), batch.tbo_offset_M.numpy(), batch.tbo_label_M.numpy()


def _without_targets(batch: PackedBatch) -> PackedBatch:
    """For retrieval alone: the other heads have nothing to do, further copies of sentences are left out."""
    tbo, spo = batch.tbo_label_M[:0], batch.spo_label_P[:0]
    return views_only(
        replace(batch, tbo_first_piece_M=tbo, tbo_offset_M=tbo, tbo_label_M=tbo, spo_span_P=spo, spo_label_P=spo)
    )


def _add(sums: dict[str, np.ndarray], outputs: PretrainingOutputs, batch: PackedBatch) -> None:
    """Add the objectives' sums of a micro-batch, in float64."""
    for name, term in prediction_terms(outputs, batch).items():
        values = {"loss": term.loss_sum, "correct": term.correct, "count": torch.tensor(term.count), **term.extra}
        for kind, value in values.items():
            sums[f"{name}/{kind}"] = sums.get(f"{name}/{kind}", 0.0) + value.double().cpu().numpy()


def _prediction_figures(sums: dict[str, np.ndarray], name: str) -> dict[str, float]:
    """Of an objective that predicts pieces."""
    count = float(sums[f"{name}/count"])
    if count == 0:
        return {}
    return {
        f"heldout/{name}_pieces": count,
        f"heldout/{name}_nats": float(sums[f"{name}/loss"]) / count,
        f"heldout/{name}_accuracy": float(sums[f"{name}/correct"]) / count,
    }


def _spo_figures(sums: dict[str, np.ndarray]) -> dict[str, float]:
    count, by_label = float(sums["spo/count"]), sums["spo/class_count"]
    if count == 0:
        return {}
    shares = by_label[by_label > 0] / count
    figures = {
        "heldout/spo_spans": count,
        "heldout/spo_nats": float(sums["spo/loss"]) / count,
        "heldout/spo_entropy": -sum(share * math.log(share) for share in shares.tolist()),
        "heldout/spo_accuracy": float(sums["spo/correct"]) / count,
    }
    for label, (right, of) in enumerate(zip(sums["spo/class_correct"], by_label, strict=True)):
        if of:
            figures[f"heldout/spo_accuracy_{label}"] = float(right / of)
    return figures


def _layout_oracle(layouts_N6: np.ndarray) -> float:
    """Expected top-1 of a guess among the sentences whose layout is exactly the query's."""
    _, counts = np.unique(layouts_N6, axis=0, return_counts=True)
    return len(counts) / len(layouts_N6)
