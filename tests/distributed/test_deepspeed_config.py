import json

import pytest
from project import ROOT

from spe_dist.config.loading import resolve
from spe_dist.distributed import deepspeed_config
from spe_dist.distributed.deepspeed_config import (
    BatchPlan,
    check_same_precision,
    choose_precision,
    complete,
    fit_to_model,
    load_deepspeed_config,
    plan_batches,
)
from spe_dist.errors import ConfigError

FOLDER = ROOT / "ds_configs"
SHIPPED = sorted(path.name for path in FOLDER.glob("*.json"))


def test_the_four_configs_are_shipped():
    assert SHIPPED == ["zero1.json", "zero2.json", "zero2_offload.json", "zero3.json"]


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize(("precision", "device"), [("float32", "cpu"), ("bfloat16", "cpu"), ("float16", "cuda")])
def test_every_auto_of_a_shipped_config_is_filled_in(name, precision, device):
    config = resolve([{"global_batch_sentences": 64, "max_grad_norm": 0.5}])
    plan = BatchPlan(global_batch=64, ranks=2, accumulation=4, micro_batch=8)
    done = complete(load_deepspeed_config(str(FOLDER / name)), config, plan, precision)
    assert "auto" not in json.dumps(done)
    assert (done["train_batch_size"], done["train_micro_batch_size_per_gpu"]) == (64, 8)
    assert (done["gradient_accumulation_steps"], done["gradient_clipping"]) == (4, 0.5)
    assert (done["fp16"]["enabled"], done["bf16"]["enabled"]) == (precision == "float16", precision == "bfloat16")
    assert done["timers"] == {"throughput": {"enabled": False}} and done["wall_clock_breakdown"] is False


def test_timers_that_a_file_asks_for_stay_on():
    asked = {"timers": {"throughput": {"enabled": True, "synchronized": False}}, "wall_clock_breakdown": True}
    done = complete(asked, resolve([{"global_batch_sentences": 64}]), BatchPlan(64, 2, 4, 8), "float32")
    assert {name: done[name] for name in asked} == asked


@pytest.mark.parametrize(
    ("given", "parameters", "bucket"),
    [({}, 5_000_000, 5_000_000), ({}, 600_000_000, 500_000_000), ({"reduce_bucket_size": 1_000}, 5_000_000, 1_000)],
)
def test_the_bucket_of_gradients_is_no_larger_than_the_model(given, parameters, bucket):
    ds_config = {"train_batch_size": 4, "zero_optimization": {"stage": 2, **given}}
    expected = {"train_batch_size": 4, "zero_optimization": {"stage": 2, "reduce_bucket_size": bucket}}
    assert fit_to_model(ds_config, parameters) == expected
    assert ds_config["zero_optimization"] == {"stage": 2, **given}


def test_stage_3_keeps_few_gathered_weights_of_a_large_model_and_copies_few_of_its_gradients():
    names = ("stage3_max_live_parameters", "stage3_max_reuse_distance", "sub_group_size")

    def limits(stage, parameters, **given):
        fitted = fit_to_model({"zero_optimization": {"stage": stage, **given}}, parameters)["zero_optimization"]
        return [fitted.get(name) for name in names]

    assert limits(3, 10**9) == [100_000_000, 100_000_000, 50_000_000]
    assert limits(3, 10**8) == limits(2, 10**9) == [None] * 3
    assert limits(3, 10**9, stage3_max_live_parameters=7) == [7, 100_000_000, 50_000_000]


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"train_batch_size": 512}, ["train_batch_size=512", "global_batch_sentences=64"]),
        ({"gradient_clipping": 2.0}, ["gradient_clipping=2.0", "max_grad_norm=1.0"]),
        ({"optimizer": {"type": "Adam"}}, ["optimizer", "learning_rate"]),
        ({"scheduler": {"type": "WarmupLR"}}, ["scheduler", "warmup_steps"]),
        ({"zero_optimization": {"stage": 0}}, ["stage=0", "1, 2 or 3"]),
        ({"comms": {"x": "auto"}}, ["comms.x"]),
        ({"comms": {"a\nname": "auto"}}, ["comms.a name="]),
    ],
)
def test_contradictions_name_both_sides(section, words):
    config = resolve([{"global_batch_sentences": 64}])
    with pytest.raises(ConfigError) as caught:
        complete(section, config, BatchPlan(64, 2, 4, 8), "float32")
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("ours", "theirs", "device", "chosen"),
    [
        ("auto", {}, "cuda", "float16"),
        ("auto", {"bf16": {"enabled": True}}, "cuda", "bfloat16"),
        ("auto", {"fp16": {"enabled": False}}, "cuda", "float32"),
        ("bfloat16", {"fp16": {"enabled": "auto"}}, "cuda", "bfloat16"),
        ("float32", {}, "cuda", "float32"),
        ("bfloat16", {"bf16": {"enabled": True}}, "cpu", "bfloat16"),
        ("mixed", {"bf16": {"enabled": "auto"}}, "cuda", "mixed"),
    ],
)
def test_precision_follows_config_then_json_then_machine(ours, theirs, device, chosen):
    assert choose_precision(resolve([{"precision": ours}]), theirs, device) == chosen


@pytest.mark.parametrize("fast_cpu", ["mixed", "bfloat16"])
def test_a_cpu_with_bfloat16_takes_what_the_kind_of_run_prefers(monkeypatch, fast_cpu):
    monkeypatch.setattr(deepspeed_config, "cpu_has_bfloat16", lambda: True)
    assert choose_precision(resolve([{}]), {}, "cpu", fast_cpu) == fast_cpu
    assert choose_precision(resolve([{}]), {"bf16": {"enabled": False}}, "cpu", fast_cpu) == "float32"
    monkeypatch.setattr(deepspeed_config, "cpu_has_bfloat16", lambda: False)
    assert choose_precision(resolve([{}]), {}, "cpu", fast_cpu) == "float32"


@pytest.mark.parametrize(
    ("ours", "theirs", "device", "word"),
    [
        ("bfloat16", {"fp16": {"enabled": True}}, "cuda", "contradicts"),
        ("float16", {"fp16": {"enabled": False}}, "cuda", "contradicts"),
        ("auto", {"fp16": {"enabled": True}, "bf16": {"enabled": True}}, "cuda", "one of them"),
        ("float16", {}, "cpu", "CPU"),
        ("mixed", {"bf16": {"enabled": True}}, "cpu", "precision=mixed contradicts bf16.enabled"),
    ],
)
def test_precision_contradictions_are_errors(ours, theirs, device, word):
    with pytest.raises(ConfigError, match=word):
        choose_precision(resolve([{"precision": ours}]), theirs, device)


def test_batch_is_cut_by_ranks_and_micro_batch():
    config = resolve([{"global_batch_sentences": 256}])
    assert plan_batches(config, 8, "cuda") == BatchPlan(256, 8, 1, 32)
    assert plan_batches(config, 2, "cpu") == BatchPlan(256, 2, 4, 32)
    config = resolve([{"global_batch_sentences": 12, "micro_batch_sentences": 2}])
    assert plan_batches(config, 3, "cpu") == BatchPlan(12, 3, 2, 2)


@pytest.mark.parametrize(
    ("given", "ranks", "word"),
    [({"global_batch_sentences": 10}, 4, "multiple of 4"), ({"micro_batch_sentences": 3}, 2, "divisor of 128")],
)
def test_batches_that_do_not_divide_name_the_remedy(given, ranks, word):
    with pytest.raises(ConfigError, match=word):
        plan_batches(resolve([given]), ranks, "cpu")


def test_bad_json_and_missing_file_are_clear(tmp_path):
    with pytest.raises(ConfigError, match="zero1, zero2, zero2_offload, zero3"):
        load_deepspeed_config(str(tmp_path / "none.json"))
    (tmp_path / "section.json").write_text('{"fp16": true}')
    with pytest.raises(ConfigError, match='"fp16" must be an object'):
        load_deepspeed_config(str(tmp_path / "section.json"))
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ConfigError, match="not valid JSON"):
        load_deepspeed_config(str(tmp_path / "bad.json"))


def test_ranks_that_choose_unlike_precisions_are_told_apart():
    check_same_precision(["bfloat16", "bfloat16"])
    with pytest.raises(ConfigError, match=r"bfloat16 on ranks \[0, 2\]; float32 on ranks \[1\].*set precision"):
        check_same_precision(["bfloat16", "float32", "bfloat16"])
