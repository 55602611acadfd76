"""The benchmark of extraction, and the allocator's setting that it measures with."""

import gc
import json
import os
import re
import subprocess
import sys
import weakref

import pytest
from project import ROOT

from spe_dist.benchmark.extraction import Setup, measure_prediction, measure_training
from spe_dist.distributed.context import start_ranks
from spe_dist.distributed.launch import detect
from spe_dist.utils.memory import freeze_garbage_collector

CORPUS = [
    {
        "tokens": ["Ann", "lives", "in", "Rome", "since", str(number)],
        "entities": [{"type": "A", "start": 0, "end": 1}, {"type": "B", "start": 3, "end": 4}],
        "relations": [{"type": "r", "head": 0, "tail": 1}],
    }
    for number in range(20)
]


def write_corpus(tmp_path):
    path = tmp_path / "train.json"
    path.write_text(json.dumps(CORPUS), encoding="utf-8")
    return str(path)


def timings(train, start, bfloat16):
    setup = Setup.open(train, start, None, start_ranks(detect(), timeout_s=60))
    training = measure_training(setup, batch_sentences=8, steps=3, gold=0.5, mixed=bfloat16)
    return training, measure_prediction(setup, batch_pieces=64, bfloat16=bfloat16, seconds=0.1)


@pytest.mark.distributed
@pytest.mark.parametrize("bfloat16", [False, True])
def test_timings_add_up(run_ranks, tmp_path, extractor_folder, bfloat16):
    [(training, prediction)] = run_ranks(timings, 1, write_corpus(tmp_path), str(extractor_folder.parent), bfloat16)
    assert training.sentences == 20  # 8 + 4 + 8
    assert 0 < training.encoder_s < training.encoder_s + training.heads_s < training.seconds
    assert prediction.sentences % 20 == 0 and prediction.sentences > 0
    assert 0 < prediction.encoder_s < prediction.seconds
    for timing in (training, prediction):
        assert timing.flops > 0 and timing.product_rate > 0
    # A backward pass has twice the products of a forward pass.
    per_piece = training.flops / training.pieces, prediction.flops / prediction.pieces
    assert 2 < per_piece[0] / per_piece[1] < 4


def test_the_command_prints_rates(tmp_path, extractor_folder):
    command = [sys.executable, "-m", "spe_dist", "benchmark", "extraction", "--train", write_corpus(tmp_path)]
    command += ["--start", str(extractor_folder.parent), "--steps", "2", "--seconds", "0.1", "--threads", "1"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert re.search(r"^training +[\d,.]+ sentences/s", result.stdout, re.MULTILINE)
    assert re.search(r"^prediction +[\d,.]+ sentences/s", result.stdout, re.MULTILINE)
    assert "of a plain product" in result.stdout


def test_a_missing_corpus_is_an_error_of_one_line(extractor_folder):
    command = [sys.executable, "-m", "spe_dist", "benchmark", "extraction", "--train", "nowhere.json"]
    command += ["--start", str(extractor_folder.parent)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2 and result.stderr.startswith("error: ") and "nowhere.json" in result.stderr


def test_the_allocator_leaves_what_the_user_has_set():
    program = """
import os
from spe_dist.utils.memory import KERNELS_OF_ONEDNN, tune_memory
print(*tune_memory(), os.environ[KERNELS_OF_ONEDNN])
"""
    environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "1000000", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "7"}
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    told = ["MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_"] if sys.platform.startswith("linux") else []
    assert result.stdout.split() == [*told, "7"], result.stderr


class Node:
    """What only the garbage collector can free, once it refers to itself."""


def test_only_what_was_made_after_loading_is_collected_until_the_next_run_begins():
    loaded = Node()
    loaded.itself = loaded
    loaded_is_there = weakref.ref(loaded)
    freeze_garbage_collector()
    made = Node()
    made.itself = made
    made_is_there = weakref.ref(made)
    del loaded, made
    gc.collect()
    assert loaded_is_there() is not None and made_is_there() is None
    freeze_garbage_collector()
    assert loaded_is_there() is None
    gc.unfreeze()
