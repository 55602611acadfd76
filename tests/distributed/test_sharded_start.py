"""Models that are sharded while they are built: the same weights as ever, and never all of them on one rank."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file
from small_steps import VOCABULARY, build_step, micro_batches, small_config, start
from transformers import BertConfig, BertForPreTraining

from spe_dist.distributed.deepspeed_config import BatchPlan, complete
from spe_dist.distributed.sharded_start import sharded_start
from spe_dist.errors import ConfigError
from spe_dist.model.loading import load_encoder
from spe_dist.pretraining import build_engine
from spe_dist.training.live_memory import LiveMemory

pytestmark = pytest.mark.distributed

DEEP = {"layers": 12, "hidden_size": 64, "intermediate_size": 256, "attention_heads": 2}
LOW_LIMITS = {
    "stage3_max_live_parameters": 60_000,
    "stage3_max_reuse_distance": 60_000,
    "stage3_prefetch_bucket_size": 50_000,
    "stage3_param_persistence_threshold": 0,
    "reduce_bucket_size": 10_000,
}


def start_weights(context, stage, precision="float32", folder=None, **given):
    """(float32 masters, pooler that is saved, bytes of tensors at most) of a start at this stage."""
    config = small_config(**given)
    plan = BatchPlan(8 * context.ranks, context.ranks, 1, 8)
    ds_config = complete({"zero_optimization": {"stage": stage}}, config, plan, precision)
    with LiveMemory() as memory, sharded_start(ds_config, precision, context):
        loaded = load_encoder(folder, config.model, VOCABULARY, config.train.seed)
        engine, _ = build_engine.build_engine(config, loaded, ds_config, precision, context)
    return engine.master_weights(), loaded.pooler_state, loaded.pooler_trained, memory.peak


def both_stages(given, folder=None):
    context = start()
    return [start_weights(context, stage, folder=folder, **given) for stage in (2, 3)]


@pytest.mark.parametrize(
    ("ranks", "given"),
    [
        (2, {"precision": "float32"}),
        (3, {"precision": "bfloat16", "cls_source": "pooler"}),
        (1, {"precision": "float32", "contrastive_head": False}),
    ],
)
def test_random_weights_are_those_of_any_other_stage(run_ranks, ranks, given):
    found = run_ranks(both_stages, ranks, given)
    (weights, pooler, _, _), (sharded_weights, sharded_pooler, _, _) = found[0]
    assert weights.keys() == sharded_weights.keys() and len(weights) > 40
    assert all(torch.equal(weights[name], sharded_weights[name]) for name in weights)
    assert all(torch.equal(pooler[name], sharded_pooler[name]) for name in pooler)


def encoder_folder(folder, heads, files):
    """A BERT of random weights, with names as a checkpoint with heads has them or not, in one file or several."""
    torch.manual_seed(3)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    bert = BertForPreTraining(BertConfig(vocab_size=VOCABULARY, **sizes))
    (bert if heads else bert.bert).save_pretrained(folder)
    if files > 1:
        state = {name: value.contiguous() for name, value in (bert if heads else bert.bert).state_dict().items()}
        names = {name: f"model-{number % files}.safetensors" for number, name in enumerate(sorted(state))}
        for file in set(names.values()):
            save_file({name: state[name].clone() for name in state if names[name] == file}, folder / file)
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return folder


@pytest.mark.parametrize(("heads", "files"), [(False, 1), (True, 3)])
def test_an_encoders_weights_are_read_tensor_by_tensor(run_ranks, tmp_path, heads, files):
    folder = encoder_folder(tmp_path, heads, files)
    ((weights, pooler, trained, _), (sharded_weights, sharded_pooler, sharded_trained, _)), _ = run_ranks(
        both_stages, 2, {}, str(folder)
    )
    assert trained and sharded_trained
    assert all(torch.equal(weights[name], sharded_weights[name]) for name in weights)
    assert all(torch.equal(pooler[name], sharded_pooler[name]) for name in pooler)


def refusal(folder):
    """What a start from this folder is refused with at stage 3; no state of all tensors may be read for that."""
    from spe_dist.model import loading

    def read_whole(*_):
        raise AssertionError("all of the weights are read")

    loading.read_state = read_whole
    try:
        start_weights(start(), 3, folder=str(folder))
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        ("none", "^$"),
        ("missing file", "lacks model-1"),
        ("cut file", "cannot read"),
        ("sizes", "hidden_size=64, but its weights have 32"),
    ],
)
def test_a_damaged_encoder_is_refused_before_it_is_trained(run_ranks, tmp_path, damage, expected):
    folder = encoder_folder(tmp_path, True, 2)
    file = folder / "model-1.safetensors"
    if damage == "missing file":
        file.unlink()
    elif damage == "cut file":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "sizes":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 64}))
    (found,) = run_ranks(refusal, 1, folder)
    assert re.search(expected, found), found


def build_deep():
    """(parameters, bytes of tensors at most while it was built and given to an engine)"""
    context = start()
    config = small_config(**DEEP)
    with LiveMemory() as memory:
        step = build_step(config, context, 3, 1, zero=LOW_LIMITS)
    return step.engine.n_parameters(), memory.peak


def test_no_rank_holds_the_model_while_it_is_built(run_ranks):
    """Of 4 ranks each keeps a quarter of weights, masters, gradients, and of average, its compensation and a copy."""
    for parameters, peak in run_ranks(build_deep, 4):
        kept = 4 * parameters * (1 + 1 + 1 + 2 + 1) / 4
        assert kept / 2 < peak < 1.25 * kept, (peak, kept)


class Watch:
    """The most weights of a module that are on this rank at once, looked at whenever one of its parts is called."""

    def __init__(self, *modules):
        self.most = 0
        self._modules = modules
        for module in modules:
            for part in module.modules():
                part.register_forward_hook(self._look)

    def _look(self, *_):
        counts = [sum(p.numel() for p in module.parameters() if not p.is_meta) for module in self._modules]
        self.most = max(self.most, *counts)


def train_deep(stage, key_weights):
    """(weights of a model that were on this rank at once, all of its weights, keys of its queues, masters)"""
    context = start()
    config = small_config(**DEEP, key_weights=key_weights, global_batch_sentences=12)
    step = build_step(config, context, stage, 2, zero=LOW_LIMITS if stage == 3 else None)
    watch = Watch(step.moco.key_module)
    live = Watch(step.engine.module) if stage == 3 else watch
    for number in range(3):
        assert step(number, 1e-3, micro_batches(config, context, number, 2)).applied
        step.moco.check_equal()
    queues = [step.moco.pair_queue.keys_KC, step.moco.context_queue.keys_KC]
    return watch.most, live.most, step.engine.n_parameters(), queues, step.engine.master_weights()


@pytest.mark.parametrize("stage", [pytest.param(1, marks=pytest.mark.long), 3])
def test_sharded_key_weights_give_the_same_keys_and_are_never_whole(run_ranks, stage):
    whole, sharded = (run_ranks(train_deep, 3, stage, kind) for kind in ("whole", "sharded"))
    for (most, _, _, queues, _), (fewest, live, parameters, same_queues, _) in zip(whole, sharded, strict=True):
        assert all(torch.equal(*pair) for pair in zip(queues, same_queues, strict=True))
        assert most > 0.9 * parameters and fewest < 0.3 * parameters
        if stage == 3:
            assert live < 0.4 * parameters
    assert all(torch.equal(whole[0][4][name], sharded[0][4][name]) for name in whole[0][4])


def test_at_stage_3_key_weights_are_sharded_unless_the_average_is_replicated():
    def sharded(stage, **given):
        return build_engine.shards_keys(small_config(**given), stage)

    assert sharded(3) and not sharded(2) and not sharded(3, average="replicated")
    assert sharded(1, key_weights="sharded") and not sharded(3, key_weights="whole")
    for given in ({"average": "replicated"}, {"compile": True}):
        with pytest.raises(ConfigError, match="key_weights=sharded does not go with"):
            small_config(key_weights="sharded", **given).validate()
