"""The stage that a run takes, by what its DeepSpeed config and its checkpoint say."""

import pytest
from project import ROOT

from spe_dist.config.loading import resolve
from spe_dist.distributed.deepspeed_config import BatchPlan, complete, load_deepspeed_config
from spe_dist.distributed.stage import choose_stage


def chosen(ds_config, precision="float32", ranks=1, **given):
    """The stage, and the line on it."""
    config = resolve([{"global_batch_sentences": 64}])
    whole = complete(ds_config, config, BatchPlan(64, ranks, 1, 64 // ranks), precision)
    found, reason = choose_stage(whole, precision, ranks, **given)
    assert {**found, "zero_optimization": None} == {**whole, "zero_optimization": None}
    return found["zero_optimization"]["stage"], reason


def zero(stage, **given):
    return {"zero_optimization": {"stage": stage, **given}}


@pytest.mark.parametrize("name", [None, "zero1", "zero2"])
@pytest.mark.parametrize("precision", ["float32", "mixed"])
def test_one_rank_with_weights_in_float32_takes_stage_0_and_says_why(name, precision):
    asked = load_deepspeed_config(str(ROOT / "ds_configs" / f"{name}.json") if name else None)
    stage, reason = chosen(asked, precision)
    assert stage == 0
    assert f"stage 0 in place of {2 if name == 'zero2' else 1}" in reason and "--keep_zero_stage true" in reason


@pytest.mark.parametrize(
    ("ds_config", "given"),
    [
        (zero(1), {"ranks": 2}),
        (zero(1), {"precision": "bfloat16"}),
        (zero(2), {"precision": "float16"}),
        (zero(3), {}),
        (zero(2), {"keep": True}),
        (zero(0), {}),
    ],
)
def test_other_runs_take_the_stage_of_their_config_without_a_word(ds_config, given):
    assert chosen(ds_config, **given) == (ds_config["zero_optimization"]["stage"], None)


@pytest.mark.parametrize(
    ("given", "needs"),
    [
        ({"offload_optimizer": {"device": "cpu"}}, "offload_optimizer"),
        ({"elastic_checkpoint": True}, "elastic_checkpoint"),
        ({"offload_optimizer": {"device": "none"}, "elastic_checkpoint": False, "overlap_comm": True}, None),
    ],
)
def test_what_only_zero_does_keeps_the_stage(given, needs):
    stage, reason = chosen(zero(2, **given))
    assert stage == (2 if needs else 0)
    assert f"stays for zero_optimization.{needs} of" in reason if needs else "in place of" in reason
