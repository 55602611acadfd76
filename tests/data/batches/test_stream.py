import itertools
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import tracemalloc
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from project import ROOT

from spe_dist.benchmark.data.made_up import write_index
from spe_dist.benchmark.data.server import FileServer
from spe_dist.config.pretraining import CorruptionConfig
from spe_dist.data.batches import loader
from spe_dist.data.batches.loader import step_loader
from spe_dist.data.batches.order import Order
from spe_dist.data.batches.packed import PackedBatch
from spe_dist.data.batches.stream import StepBatch, StepBuilder
from spe_dist.data.shards.store import ShardStore
from spe_dist.errors import ConfigError, DataError

CONFIG = CorruptionConfig()


def assert_equal_batches(left: PackedBatch, right: PackedBatch) -> None:
    for field in fields(PackedBatch):
        a, b = getattr(left, field.name), getattr(right, field.name)
        if isinstance(a, torch.Tensor):
            assert a.dtype == b.dtype and torch.equal(a, b), field.name
        else:
            assert a == b


def assert_equal_steps(left: list[StepBatch], right: list[StepBatch]) -> None:
    assert [(s.step, s.epoch, len(s.micro_batches)) for s in left] == [
        (s.step, s.epoch, len(s.micro_batches)) for s in right
    ]
    for a, b in zip(left, right, strict=True):
        for one, other in zip(a.micro_batches, b.micro_batches, strict=True):
            assert_equal_batches(one, other)


def ids_of(step: StepBatch) -> list[int]:
    return torch.cat([batch.sentence_ids_B for batch in step.micro_batches]).tolist()


def load(store, rank=0, ranks=1, start=0, end=12, workers=0, micro=4, config=CONFIG, **more):
    of_order = {"seed": 5, "streams": 0, "global_batch": 24, "shard_blocks": None}
    order = Order(store.block_sentences, **{name: more.pop(name, default) for name, default in of_order.items()})
    return step_loader(
        StepBuilder(store, config, order, micro, rank, ranks), start, end, loader_workers=workers, **more
    )


@settings(max_examples=25)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=8).filter(lambda sizes: sum(sizes) >= 24),
    seed=st.integers(0, 1000),
    ranks=st.sampled_from([1, 2, 4]),
    workers=st.sampled_from([1, 2, 3]),
    stops=st.lists(st.integers(0, 8), max_size=3).map(sorted),
)
def test_any_ranks_workers_and_stops_give_the_same_sentences_in_the_same_steps(
    memory_store, sizes, seed, ranks, workers, stops
):
    store = memory_store(sizes, first_sentence_id=100)
    order = Order(store.block_sentences, seed, 0, 24)
    expected = [ids_of(StepBuilder(store, CONFIG, order, 24, 0, 1).build(step)) for step in range(8)]
    seen: list[list[int]] = [[] for _ in range(8)]
    for rank in range(ranks):
        for start, end in itertools.pairwise([0, *stops, 8]):
            builder = StepBuilder(store, CONFIG, Order(store.block_sentences, seed, 0, 24), 24 // ranks, rank, ranks)
            for worker in range(workers):  # what each loader process does, one after the other
                copy = pickle.loads(pickle.dumps(builder))
                for step in range(start + worker, end, workers):
                    seen[step] += ids_of(copy.build(step))
    assert seen == expected


@pytest.mark.parametrize("ranks", [1, 2])
def test_loader_processes_give_the_steps_of_no_process(random_shards, ranks):
    store = ShardStore.open(str(random_shards))
    for rank in range(ranks):
        plain = list(load(store, rank, ranks, start=3, end=40))
        for workers in (1, 3):
            assert_equal_steps(list(load(store, rank, ranks, start=3, end=40, workers=workers)), plain)


def test_ranks_and_micro_batches_only_cut_the_global_batch(random_shards):
    store = ShardStore.open(str(random_shards))
    steps = range(14, 18)
    epochs = [set(Order(store.block_sentences, 5, 0, 24).slots(step, 0, 24).epochs_N.tolist()) for step in steps]
    assert {0, 1} in epochs, "a step on the border of epochs has sentences of both, each corrupted for its own"
    whole = [step.micro_batches[0] for step in load(store, micro=24, start=14, end=18)]
    for ranks, micro in ((1, 8), (2, 12), (4, 3), (24, 1)):
        cut = [list(load(store, rank, ranks, micro=micro, start=14, end=18)) for rank in range(ranks)]
        for step, batch in enumerate(whole):
            assert batch.sentence_ids_B.tolist() == [i for rank in cut for i in ids_of(rank[step])]
            for name in ("tbo_label_M", "spo_label_P"):
                parts = torch.cat([getattr(b, name) for rank in cut for b in rank[step].micro_batches])
                assert torch.equal(parts, getattr(batch, name)), name


def test_resuming_continues_the_same_steps_with_other_workers(random_shards):
    store = ShardStore.open(str(random_shards))
    whole = list(load(store, end=30))
    assert [step.step for step in whole] == list(range(30))
    ids = [i for step in whole for i in ids_of(step)]
    assert sorted(ids[:400]) == list(range(400)) and len(set(ids[400:])) == 30 * 24 - 400  # two epochs
    first = load(store, end=None, workers=3)
    parts = [next(first) for _ in range(11)]
    first.close()
    resumed = list(load(store, start=11, end=30, workers=1))
    assert len(resumed) == 19
    assert_equal_steps(parts + resumed, whole)
    with pytest.raises(AssertionError):
        assert_equal_steps(resumed, whole[:19])


def test_ids_are_those_of_the_split(random_shards):
    held_out = ShardStore.open(str(random_shards), "held_out")
    ids = {i for step in load(held_out) for i in ids_of(step)}
    assert ids == set(range(400, 450))


def test_a_sentence_is_corrupted_differently_in_every_epoch(random_shards):
    store = ShardStore.open(str(random_shards))
    views: dict[int, set] = {}
    for step in load(store, end=51, micro=1):  # three epochs of 400 sentences
        for batch in step.micro_batches:
            views.setdefault(int(batch.sentence_ids_B[0]), set()).add(tuple(batch.piece_ids_T.tolist()))
    assert len(views) == 400
    assert sum(len(seen) >= 3 for seen in views.values()) > 350


def test_more_workers_than_steps_is_no_error(random_shards):
    store = ShardStore.open(str(random_shards))
    assert [step.step for step in load(store, start=7, end=9, workers=3)] == [7, 8]
    assert list(load(store, start=7, end=7, workers=2)) == []


def test_workers_prepare_at_most_prefetch_steps(random_shards):
    built = multiprocessing.get_context("fork").Value("i", 0)

    class CountingBuilder(StepBuilder):
        def build(self, step):
            with built.get_lock():
                built.value += 1
            return super().build(step)

    store = ShardStore.open(str(random_shards))
    builder = CountingBuilder(store, CONFIG, Order(store.block_sentences, 0, 0, 24), 24, 0, 1)
    for workers, prefetch in ((3, 7), (4, 2), (1, 5)):
        built.value = 0
        steps = loader.WorkerLoader(builder, 0, None, workers, prefetch)
        assert len(steps.processes) <= min(workers, prefetch)
        taken = [next(steps).step for _ in range(4)]
        time.sleep(0.4)
        assert taken == [0, 1, 2, 3] and built.value <= 4 + prefetch
        steps.close()


def damaged_copy(random_shards: Path, folder: Path) -> ShardStore:
    shutil.copytree(random_shards, folder)
    shard = folder / "train-00001.tar"
    shard.chmod(0o644)
    data = bytearray(shard.read_bytes())
    data[2000] ^= 0xFF
    shard.write_bytes(data)
    return ShardStore.open(str(folder))


def test_an_error_in_a_worker_is_the_error_without_workers(random_shards, tmp_path):
    store = damaged_copy(random_shards, tmp_path / "shards")
    messages = []
    for workers in (0, 2):
        with pytest.raises(DataError, match=r"train-00001\.tar") as caught:
            list(load(store, end=40, workers=workers))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert not multiprocessing.active_children()


def test_errors_of_the_settings_come_before_any_process(memory_store):
    store = memory_store([100])
    with pytest.raises(ConfigError, match="prefetch_steps=0"):
        load(store, workers=2, prefetch_steps=0)
    with pytest.raises(ConfigError, match="permutations=9"):
        load(store, workers=2, config=CorruptionConfig(permutations=9))
    with pytest.raises(DataError, match="100 training sentences"):
        load(store, global_batch=120)


def test_closing_or_dropping_a_loader_ends_its_processes_and_leaves_no_shared_memory(random_shards):
    store = ShardStore.open(str(random_shards))
    steps = load(store, end=None, workers=2)
    next(steps)
    pids = [os.getpid(), *(process.pid for process in steps.processes)]
    steps.close()
    steps.close()
    assert next(steps, None) is None
    dropped = load(store, end=None, workers=2)
    processes = dropped.processes
    assert len(processes) == 2
    pids += [process.pid for process in processes]
    del dropped
    assert not any(process.is_alive() for process in processes)
    assert not [path for pid in pids for path in Path("/dev/shm").glob(f"torch_{pid}_*")]


def test_a_loader_draws_no_ambient_random_number(random_shards):
    store = ShardStore.open(str(random_shards))
    state = torch.get_rng_state()
    numpy_state = pickle.dumps(np.random.get_state())
    list(load(store, end=3, workers=1))
    assert torch.equal(state, torch.get_rng_state()) and numpy_state == pickle.dumps(np.random.get_state())


def test_workers_outlive_signals_to_stop(random_shards):
    store = ShardStore.open(str(random_shards))
    steps = load(store, end=None, workers=2)
    next(steps)
    for process, number in itertools.product(steps.processes, (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)):
        os.kill(process.pid, number)
    assert [next(steps).step for _ in range(20)] == list(range(1, 21))
    steps.close()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) & loader._BLOCKED == set()


def test_workers_of_a_fork_server_give_the_same_steps(random_shards, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert loader._context().get_start_method() == "forkserver"
    store = ShardStore.open(str(random_shards))
    monkeypatch.chdir(ROOT)
    steps = list(load(store, end=6, workers=1))
    assert_equal_steps(steps, list(load(store, end=6)))


PROGRAM = """
    import multiprocessing, os, signal, sys, time
    import torch
    from spe_dist.config.pretraining import CorruptionConfig
    from spe_dist.data.shards.store import ShardStore
    from spe_dist.data.batches.loader import step_loader
    from spe_dist.data.batches.order import Order
    from spe_dist.data.batches.stream import StepBuilder

    if __name__ == "__main__":
        shards, in_cuda, sentences = sys.argv[1], sys.argv[2] == "forkserver", int(sys.argv[3])
        torch.cuda.is_initialized = lambda: in_cuda
        store = ShardStore.open(shards)
        order = Order(store.block_sentences, 0, 0, sentences)
        steps = step_loader(StepBuilder(store, CorruptionConfig(), order, sentences, 0, 1), 0, loader_workers=2)
        next(steps)
        if sentences > 100:
            time.sleep(2)  # by now both workers wait for room in the pipe
        print(*(process.pid for process in steps.processes), time.time(), flush=True)
        {end}
"""
KILL = "os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.parametrize(
    ("end", "method", "sentences"),
    [
        ("raise SystemExit(1)", "fork", 24),
        (KILL, "fork", 24),
        (KILL, "fork", 400),  # one step is more than a pipe holds
        (KILL, "forkserver", 400),
    ],
)
def test_workers_end_with_a_program_that_does_not_close_its_loader(tmp_path, random_shards, end, method, sentences):
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM).format(end=end))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with open(tmp_path / "said", "w+b") as said:  # a pipe would be held open by what is left
        command = [sys.executable, str(program), str(random_shards), method, str(sentences)]
        subprocess.run(command, env=environment, stdout=said, timeout=240, check=False)
        said.seek(0)
        *pids, ended = said.read().split()
    assert len(pids) == 2
    left = [Path(f"/proc/{int(pid)}") for pid in pids]
    while any(path.exists() for path in left) and time.time() - float(ended) < 60:
        time.sleep(0.1)
    assert not any(path.exists() for path in left)


def test_memory_stays_flat_over_epochs(memory_store):
    store = memory_store([40] * 10)
    steps = load(store, end=None, micro=24)
    peaks = []
    tracemalloc.start()
    for _ in range(6):
        tracemalloc.reset_peak()
        for _ in range(34):  # two epochs
            next(steps)
        peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert peaks[-1] < 1.02 * max(peaks[:2])


def test_a_rank_keeps_few_blocks_and_reads_each_once_an_epoch(memory_store):
    store = memory_store([20] * 200)
    builder = StepBuilder(store, CONFIG, Order(store.block_sentences, 0, 8, 16), 8, 0, 2)
    for step in range(250):
        builder.build(step)
    assert len(builder.reader._blocks) <= 4 + 2 + 8
    assert store.reads <= 100 + 4  # half of the epoch's blocks, and those that streams share


def test_blocks_are_asked_for_before_they_are_due_in_few_looks_ahead(memory_store):
    store = memory_store([20] * 200, lookahead_sentences=16)
    builder = pickle.loads(pickle.dumps(StepBuilder(store, CONFIG, Order(store.block_sentences, 0, 8, 16), 8, 0, 2)))
    store = builder.reader.store
    read, asked = store.block, {}
    store.block = lambda index: (
        asked.setdefault(index, "late" if index not in store.prefetched else "ahead") and read(index)
    )
    builder.build(0)
    first = set(asked)
    assert set(asked.values()) == {"ahead"}, "the blocks of the first step are asked for together, then read"
    for step in range(1, 100):
        before = len(store.prefetched)
        builder.build(step)
        assert len(store.prefetched) - before <= 2 * 4
    assert len(asked) > 2 * len(first) and set(asked.values()) == {"ahead"}


def test_a_local_store_is_asked_for_nothing(random_shards):
    assert ShardStore.open(str(random_shards)).lookahead_sentences == 0


def test_a_pickled_builder_is_small_however_many_blocks_there_are(tmp_path):
    write_index(tmp_path, 50_000)
    store = ShardStore.open(str(tmp_path))
    order = Order(store.block_sentences, 0, 0, 256, shard_blocks=store.shard_blocks)
    builder = StepBuilder(store, CONFIG, order, 32, 3, 8)
    order.slots(0, 0, 256)
    parcel = pickle.dumps(builder)
    assert len(parcel) < 50_000
    copy = pickle.loads(parcel)
    for step in (0, 10**6):
        ours, theirs = builder.order.slots(step, 96, 32), copy.order.slots(step, 96, 32)
        assert ours.sentences_N.tolist() == theirs.sentences_N.tolist()


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("order", ["blocks", "shards"])
def test_a_distant_server_gives_the_steps_of_the_local_folder(random_shards, tmp_path, ranges, order):
    server = FileServer(random_shards, latency_s=0.01, has_ranges=ranges)
    server.start()
    local = ShardStore.open(str(random_shards))
    shard_blocks = local.shard_blocks if order == "shards" else None
    expected = list(load(local, end=40, shard_blocks=shard_blocks))
    for workers in (0, 2):
        distant = ShardStore.open(server.url, cache_dir=str(tmp_path / str(workers)))
        assert_equal_steps(list(load(distant, end=40, workers=workers, shard_blocks=shard_blocks)), expected)
    server.stop()
