"""Whole runs of both trainings, stopped twice, that go on by `--resume auto` in other ranks and at other stages."""

from __future__ import annotations

import contextlib
import io

import pytest
import torch
from small_runs import (
    FINETUNING,
    PRETRAINING,
    ask_to_stop,
    command_line,
    small_corpus,
    zero_stage,
)

from spe_dist import finetune, pretrain
from spe_dist.cli import export
from spe_dist.cli.exits import STOPPED
from spe_dist.distributed.checkpoint import find_checkpoint
from spe_dist.distributed.fragments.tensors import read_whole
from spe_dist.extraction.joint.folder import load_extractor
from spe_dist.training.metrics import read_rows

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

EXACT = (
    *("step", "applied", "skipped_steps", "learning_rate", "sentences", "queue_fill", "epoch", "head_learning_rate"),
    *("encoder_learning_rate", "mlm_pieces"),
)


def run(main, argv, looks=None):
    """(status, what was printed) in this rank; the last one is asked to stop when it looks the `looks`-th time."""
    if looks is not None:
        ask_to_stop(looks)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        status = main(argv)
    return status, printed.getvalue()


def compare(whole, parts):
    expected, found = (read_rows(output / "metrics.jsonl", "train") for output in (whole, parts))
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    for row, wanted in zip(found, expected, strict=True):
        assert row["loss"] == pytest.approx(wanted["loss"], rel=1e-5), row["step"]
        for name in EXACT:
            assert row.get(name) == wanted.get(name), (name, row["step"])


def test_pre_training_goes_on_with_fewer_ranks_and_with_more_again(run_ranks, demo_shards, tmp_path):
    settings = {**PRETRAINING, "steps": 9, "evaluate_sentences": 0, "dropout": 0.0, "shards": demo_shards}

    def arguments(output, stage, *further):
        return [*command_line({**settings, "output": tmp_path / output}), zero_stage(tmp_path, stage), *further]

    assert run_ranks(run, 2, pretrain.main, arguments("whole", 2))[0][0] == 0
    assert run_ranks(run, 2, pretrain.main, arguments("parts", 2), 6)[0][0] == STOPPED  # accumulation 2: after step 3
    fewer = arguments("parts", 1, "--resume=auto", "--average=replicated")
    [(status, printed)] = run_ranks(run, 1, pretrain.main, fewer, 12)  # accumulation 4: after step 6
    assert status == STOPPED
    assert "resuming on 1 rank at stage 0 from a checkpoint of 2 ranks at stage 2" in printed
    (status, printed), _ = run_ranks(run, 2, pretrain.main, arguments("parts", 3, "--resume=auto", "--queue=sharded"))
    assert status == 0 and "resuming on 2 ranks at stage 3 from a checkpoint of 1 rank at stage 0" in printed
    compare(tmp_path / "whole", tmp_path / "parts")
    whole, parts = (find_checkpoint(tmp_path / name) for name in ("whole", "parts"))
    for queue in ("pair_queue", "context_queue"):
        for name in ("ids_K", "cursor", "fill"):
            assert read_whole(whole, queue)[name].tolist() == read_whole(parts, queue)[name].tolist()


LEVERS = {
    "mlm": "true",
    "layers": 2,
    "warmup_steps": 3,
    "freeze_encoder_steps": 4,
    "layer_decay": 0.8,
    "head_learning_rate": 6e-3,
    "queue_keys": 51,
}
OTHERS = {
    "mlm": "true",
    "mlm_decoder": "random",
    "tbo_decoder": "tied",
    "permutations": 2,
    "view_masks": "one",
    "freeze_encoder_steps": 5,
    "key_dropout": "true",
    "queue_keys": 3,  # fewer than ranks
}


@pytest.mark.long
@pytest.mark.parametrize("given", [LEVERS, OTHERS])
def test_all_that_is_beyond_the_paper_goes_on_elsewhere_too(run_ranks, demo_shards, tmp_path, given):
    """While the encoder is frozen and after it, with dropout by slots, other loaders, micro-batches, kinds of queue."""
    settings = {
        **PRETRAINING,
        "steps": 12,
        "evaluate_sentences": 0,
        "shards": demo_shards,
        "dropout_seed": "slot",
        **given,
    }

    def arguments(output, stage, *further):
        return [*command_line({**settings, "output": tmp_path / output}), zero_stage(tmp_path, stage), *further]

    assert run_ranks(run, 2, pretrain.main, arguments("whole", 2))[0][0] == 0
    parts = [
        (4, 3, 6, ["--queue=sharded", "--micro_batch_sentences=2"]),  # accumulation 2: after step 3
        (1, 1, 12, ["--loader_workers=1"]),
        (4, 1, 3, ["--queue=sharded", "--average=replicated", "--loader_workers=2"]),
        (2, 2, None, []),
    ]
    for ranks, stage, looks, further in parts:
        status, printed = run_ranks(
            run, ranks, pretrain.main, arguments("parts", stage, "--resume=auto", *further), looks
        )[0]
        assert status == (STOPPED if looks else 0), printed
    compare(tmp_path / "whole", tmp_path / "parts")


def test_fine_tuning_goes_on_with_fewer_ranks_and_with_more_again(run_ranks, demo_corpus, tmp_path):
    small_corpus(demo_corpus, tmp_path)
    files = {"train": tmp_path / "train.json", "dev": tmp_path / "dev.json", "tokenizer": tmp_path / "tokenizer"}
    settings = {**FINETUNING, **files, "dropout": 0.0, "epochs": 3, "log_every_steps": 1, "precision": "float32"}

    def arguments(output, stage, *further):
        return [*command_line({**settings, "output": tmp_path / output}), zero_stage(tmp_path, stage), *further]

    assert run_ranks(run, 2, finetune.main, arguments("whole", 3))[0][0] == 0
    steps = len(read_rows(tmp_path / "whole" / "metrics.jsonl", "train"))
    assert steps >= 6
    assert run_ranks(run, 2, finetune.main, arguments("parts", 3), 2)[0][0] == STOPPED
    assert export.main([str(tmp_path / "parts"), str(tmp_path / "model")]) == 0
    exported = load_extractor(tmp_path / "model")
    masters = read_whole(find_checkpoint(tmp_path / "parts"), "weights")
    assert all(torch.equal(tensor, masters[name]) for name, tensor in exported.model.named_parameters())
    assert exported.facts["checkpoint"] == find_checkpoint(tmp_path / "parts").name
    assert export.main([str(tmp_path / "parts"), str(tmp_path / "other"), "--encoder", "key"]) == 2
    [(status, printed)] = run_ranks(run, 1, finetune.main, arguments("parts", 2, "--resume=auto"), 2)
    assert status == STOPPED
    assert "resuming on 1 rank at stage 0 from a checkpoint of 2 ranks at stage 3" in printed
    (status, printed), _ = run_ranks(run, 2, finetune.main, arguments("parts", 1, "--resume=auto"))
    assert status == 0 and "resuming on 2 ranks at stage 1 from a checkpoint of 1 rank at stage 0" in printed
    compare(tmp_path / "whole", tmp_path / "parts")
