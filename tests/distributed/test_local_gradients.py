"""Stage 0's own gradients against plain dense ones."""

import pytest
import torch
from torch import nn

from spe_dist.config.finetuning import FinetuneConfig, OptimizerConfig
from spe_dist.distributed import local_gradients
from spe_dist.distributed.context import start_ranks
from spe_dist.distributed.deepspeed_config import BatchPlan, complete
from spe_dist.distributed.engine import TrainingEngine
from spe_dist.distributed.launch import detect

ROWS, WIDTH, STEPS, ACCUMULATION = 40, 6, 4, 2


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(ROWS, WIDTH, padding_idx=0)
        self.frozen = nn.Embedding(ROWS, WIDTH).requires_grad_(False)
        self.linear = nn.Linear(WIDTH, 1)

    def forward(self, rows):
        return self.linear(self.table(rows) + self.frozen(rows) + self.table(rows // 2)).pow(2).mean()


def model_and_batches():
    torch.manual_seed(0)
    return Model(), torch.randint(0, ROWS, (STEPS, ACCUMULATION, 12))


def in_engine(max_norm):
    context = start_ranks(detect(), timeout_s=60)
    local_gradients.LARGE_TABLE = 1
    config = FinetuneConfig(optimizer=OptimizerConfig(max_grad_norm=max_norm))
    plan = BatchPlan(24, 1, ACCUMULATION, 12, "batch_sentences")
    ds_config = complete({"zero_optimization": {"stage": 0}}, config, plan, "float32")
    model, batches = model_and_batches()
    engine = TrainingEngine(model, lambda m: torch.optim.AdamW(m.parameters(), 0.1), ds_config, "float32", context)
    assert model.table.sparse and not model.frozen.sparse
    norms, places = [], set()
    for step in batches:
        for rows in step:
            engine.backward(engine(rows))
            engine.step()
        norms.append(engine.grad_norm())
        places.add(model.table.weight.grad.data_ptr())
    assert len(places) == 1  # never allocated anew
    return norms, {name: value.detach() for name, value in model.named_parameters()}


@pytest.mark.distributed
@pytest.mark.parametrize("max_norm", [0.0, 0.5])
def test_steps_are_those_of_dense_gradients(run_ranks, max_norm):
    [(norms, weights)] = run_ranks(in_engine, 1, max_norm)
    model, batches = model_and_batches()
    optimizer = torch.optim.AdamW(model.parameters(), 0.1)
    for step, norm in zip(batches, norms, strict=True):
        optimizer.zero_grad()
        for rows in step:
            (model(rows) / ACCUMULATION).backward()
        expected = nn.utils.clip_grad_norm_(model.parameters(), max_norm or float("inf"))
        assert norm == pytest.approx(float(expected), rel=1e-5)
        optimizer.step()
    assert min(norms) > 0.5  # so that clipping clips
    for name, value in model.named_parameters():
        torch.testing.assert_close(weights[name], value, msg=name)
