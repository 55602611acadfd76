"""DeepSpeed engines around a model of many small parameters, with one batch of numbers for each step and rank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spe_dist.config.finetuning import FinetuneConfig, OptimizerConfig
from spe_dist.distributed.context import RankContext
from spe_dist.distributed.deepspeed_config import DTYPES, BatchPlan, Precision, complete
from spe_dist.distributed.engine import TrainingEngine

WIDTH, BATCH = 6, 8
BERT_BASE_PARAMETERS = 233  # of the pre-training model around BERT-base


class ManyParameters(nn.Module):
    """The mean square of a sum of linear layers, after a table: matrices and vectors, an odd number of parameters."""

    def __init__(self, parameters: int) -> None:
        super().__init__()
        self.table = nn.Embedding(7, WIDTH)
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(parameters // 2))

    def forward(self, rows: Tensor) -> Tensor:
        states = self.table(rows)
        return sum(layer(states) for layer in self.layers).float().square().mean()


def make_engine(
    context: RankContext,
    precision: Precision,
    stage: int,
    max_grad_norm: float = 1.0,
    parameters: int = BERT_BASE_PARAMETERS,
    zero: Mapping[str, Any] | None = None,
    **ds: Any,
) -> TrainingEngine:
    """An engine around `ManyParameters` in two parameter groups; a rank may make several."""
    config = FinetuneConfig(optimizer=OptimizerConfig(max_grad_norm=max_grad_norm))
    plan = BatchPlan(BATCH * context.ranks, context.ranks, 1, BATCH, "batch_sentences")
    ds_config = complete({"zero_optimization": {"stage": stage, **(zero or {})}, **ds}, config, plan, precision)
    torch.manual_seed(0)
    model = ManyParameters(parameters)
    groups = [[p for p in model.parameters() if (p.ndim > 1) == matrix] for matrix in (True, False)]
    optimizer = torch.optim.AdamW([{"params": group} for group in groups], 1e-2, eps=1e-6, fused=True)
    engine = TrainingEngine(model.to(DTYPES[precision]), lambda _: optimizer, ds_config, precision, context)
    engine.train()
    return engine


def run_step(engine: TrainingEngine, number: int, scale: float = 1.0) -> bool:
    """One step on this rank's batch, its loss times `scale`; whether it was applied."""
    generator = torch.Generator().manual_seed(100 * number + engine.context.rank)
    engine.backward(engine(torch.randint(0, 7, (BATCH,), generator=generator)) * scale)
    engine.step()
    return engine.was_step_applied()
