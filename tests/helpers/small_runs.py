"""A small network, and whole training runs as tests make them: their command lines, requests to stop, and rows."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

from spe_dist.training.metrics import read_rows

NETWORK = {
    "hidden_size": 32,
    "layers": 1,
    "attention_heads": 2,
    "intermediate_size": 48,
    "span_size": 24,
    "cnn_channels": 8,
    "attention_size": 16,
    "position_size": 8,
}
PRETRAINING_NETWORK = {**NETWORK, "tbo_offset_size": 8, "contrastive_size": 16, "queue_keys": 50}
PRETRAINING = {
    **PRETRAINING_NETWORK,
    "global_batch_sentences": 16,
    "micro_batch_sentences": 4,
    "learning_rate": 3e-3,
    "evaluate_every_steps": 0,
    "check_every_steps": 5,
    "loader_workers": 0,
    "precision": "float32",
}
FINETUNING = {
    **NETWORK,
    "start": "none",
    "layers": 2,
    "relation_size": 16,
    "batch_sentences": 8,
    "learning_rate": 5e-3,
    "head_learning_rate": 5e-3,
    "epochs": 4,
    "dropout": 0.1,
    "gold_epochs": 1,
    "log_every_steps": 3,
    "precision": "float32",
}
# What the clock and the machine decide of a row.
MEASURED = {
    "step_s",
    "save_s",
    "save_wait_s",
    "sentences_per_s",
    "pieces_per_s",
    "data_wait_share",
    "peak_memory_gib",
    "slowest_rank",
    "slowest_over_median",
    "dev/seconds",
}


def command_line(settings: dict[str, Any]) -> list[str]:
    """`--name=value` for every setting but those that are None."""
    return [f"--{name}={value}" for name, value in settings.items() if value is not None]


def small_corpus(demo_corpus: Path, folder: Path) -> dict[str, Path]:
    """Settings of 40 training and 12 dev sentences of the demo corpus, and a tokenizer of their words, in a folder."""
    from spe_dist.data.text.vocabulary import save_tokenizer, tokenizer_from_pieces

    sentences = json.loads((demo_corpus / "extraction" / "train.json").read_text())
    with_relations = [sentence for sentence in sentences if sentence["relations"]]
    (folder / "train.json").write_text(json.dumps(with_relations[:40]))
    (folder / "dev.json").write_text(json.dumps(with_relations[40:52]))
    words = sorted({word for sentence in with_relations[:40] for word in sentence["tokens"]})
    tokenizer = tokenizer_from_pieces(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words], do_lower_case=False)
    save_tokenizer(tokenizer, folder / "tokenizer")
    return {"train": folder / "train.json", "dev": folder / "dev.json", "tokenizer": folder / "tokenizer"}


def zero_stage(folder: Path, stage: int) -> str:
    """The argument `--deepspeed=FILE` with a file that asks for this stage and nothing else."""
    path = folder / f"zero{stage}.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": stage}}))
    return f"--deepspeed={path}"


def ask_to_stop(after: int) -> None:
    """Have the last rank, if this is it, asked to stop when its run looks for the `after`-th time."""
    from spe_dist.distributed.stop import StopRequest

    if int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1:
        looks = itertools.count(1)
        StopRequest.requested = property(lambda self: next(looks) >= after)
        StopRequest.reason = property(lambda self: "test")


def comparable_rows(output: Path) -> list[dict[str, Any]]:
    """The rows of a run without what was measured of its clock and machine."""
    rows = read_rows(output / "metrics.jsonl")
    return [{name: value for name, value in row.items() if name not in MEASURED} for row in rows]
