"""The memory that `--dry_run` says, beside what the tensors of real ranks take at the peak of a step: counted."""

import pytest
from small_steps import VOCABULARY, build_step, micro_batches, small_config, start

from spe_dist.distributed.deepspeed_config import DTYPES, BatchPlan, complete, fit_to_model
from spe_dist.model.loading import load_encoder
from spe_dist.model.start.build import build_pretraining_model, largest_part
from spe_dist.pretraining.dry_run import held_memory
from spe_dist.training.footprint import saved_activations
from spe_dist.training.live_memory import LiveMemory

pytestmark = pytest.mark.distributed

SIZES = {"layers": 6, "hidden_size": 128, "intermediate_size": 512, "attention_heads": 2}
OFFLOAD = {"offload_optimizer": {"device": "cpu"}}
CASES = [
    (1, "float32", {}),
    (1, "bfloat16", {}),
    (2, "float32", {}),
    (2, "bfloat16", {}),
    (2, "bfloat16", OFFLOAD),
    (3, "float32", {}),
    (3, "bfloat16", {}),
    (3, "bfloat16", OFFLOAD),
]


def counted_and_said(stage, precision, zero):
    """(bytes of tensors at the peak of a fourth step, bytes by part as `--dry_run` has them)"""
    context, accumulation = start(), 2
    config = small_config(**SIZES)
    batch = config.train.global_batch_sentences
    plan = BatchPlan(batch, context.ranks, accumulation, batch // context.ranks // accumulation)
    with LiveMemory() as memory:
        step = build_step(config, context, stage, accumulation, precision, zero)
        for number in range(3):
            step(number, 1e-3, micro_batches(config, context, number, accumulation))
        step.moco.key_encoder.finish()
        memory.peak = memory.live
        step(3, 1e-3, micro_batches(config, context, 3, accumulation))
    parameters, keys = step.engine.n_parameters(), step.moco.key_encoder
    ds_config = complete({"zero_optimization": {"stage": stage, **zero}}, config, plan, precision)
    counts = (parameters, keys.layout.numel, largest_part(keys.module))
    said = held_memory(config, fit_to_model(ds_config, parameters), precision, plan, *counts, "cpu")
    model = build_pretraining_model(config, load_encoder(None, config.model, VOCABULARY, 0).encoder).train()
    first = micro_batches(config, context, 3, accumulation)[0]
    said["activations"] = saved_activations(model, lambda: model(first)) * DTYPES[precision].itemsize // 4
    return memory.peak, said


ON_TWO = [pytest.param(2, *c, marks=() if c[0] < 3 or c[1:] == ("bfloat16", {}) else pytest.mark.long) for c in CASES]
ON_FOUR = [pytest.param(4, *case, marks=pytest.mark.long) for case in CASES]


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "stage", "precision", "zero"), [(1, 0, "float32", {}), *ON_TWO, *ON_FOUR])
def test_a_step_takes_what_the_dry_run_says(run_ranks, ranks, stage, precision, zero):
    """Within 10%, rank by rank, beside the process itself and what its allocator keeps."""
    for peak, said in run_ranks(counted_and_said, ranks, stage, precision, zero):
        assert sum(said.values()) == pytest.approx(peak, rel=0.1), (peak, said)
