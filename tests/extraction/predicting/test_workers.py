"""Batches on several threads: order, threads of torch, errors, early ends and forks."""

from __future__ import annotations

import os
import threading
import time

import pytest
import torch

from spe_dist.extraction.joint.examples import ExampleMaker, count_pieces, make_examples
from spe_dist.extraction.predicting.stream import StreamSettings, predict_sentences
from spe_dist.extraction.predicting.workers import BatchWorkers


def test_results_come_in_order_from_threads_that_share_the_cores():
    workers = BatchWorkers(2)
    both_run = threading.Barrier(2, timeout=60)

    def work(number: int) -> tuple[int, int, str]:
        both_run.wait()
        time.sleep(0.02 * (number % 2 == 0))
        return number, torch.get_num_threads(), threading.current_thread().name

    results = list(workers.map(work, range(8)))
    assert [number for number, _, _ in results] == list(range(8))
    assert {threads for _, threads, _ in results} == {1}
    assert len({name for _, _, name in results}) == 2


def test_other_threads_keep_their_number_of_torch_threads():
    torch.set_num_threads(3)
    try:
        list(BatchWorkers(2).map(abs, [1, 2]))
        seen = []
        thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert [torch.get_num_threads(), *seen] == [3, 3]
    finally:
        torch.set_num_threads(1)


def test_many_cores_are_shared_out_among_a_few_workers():
    assert BatchWorkers(8).count == 8 and BatchWorkers(64).count == 8
    assert list(BatchWorkers(32).map(lambda _: torch.get_num_threads(), [0])) == [4]


@pytest.mark.parametrize("threads", [2, 3, 8, 64])
@pytest.mark.parametrize("pieces", [0, 5, 600, 4096, 70_000])
def test_batches_share_the_pieces_and_leave_no_worker_idle(threads, pieces):
    workers = BatchWorkers(threads)
    size = workers.batch_pieces(4096, pieces)
    assert 256 <= size <= max(1024, -(-4096 // threads))
    batches = -(-pieces // size)
    assert batches % workers.count == 0 or size == 256
    assert workers.batch_pieces(100, pieces) <= 100


def test_an_error_ends_the_others_and_the_workers_serve_again():
    workers = BatchWorkers(2)
    done = []

    def work(number: int) -> int:
        if number == 1:
            raise ValueError("one")
        time.sleep(0.01)
        done.append(number)
        return number

    with pytest.raises(ValueError, match="one"):
        list(workers.map(work, range(1000)))
    count = len(done)
    assert count < 100
    time.sleep(0.05)
    assert len(done) == count
    assert list(workers.map(work, [5, 6])) == [5, 6]


def test_a_stream_that_is_left_early_computes_nothing_more():
    done = []
    results = BatchWorkers(2).map(lambda number: (time.sleep(0.005), done.append(number)), range(1000))
    next(results)
    results.close()
    assert len(done) < 100


def test_threads_end_with_their_object():
    workers = BatchWorkers(2)
    threads = set(workers.map(lambda _: threading.current_thread(), range(50)))
    del workers
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_starts_threads_of_its_own():
    workers = BatchWorkers(2)
    assert list(workers.map(abs, [-1])) == [1]
    child = os.fork()
    if child == 0:
        os._exit(0 if list(workers.map(abs, [-2, -3])) == [2, 3] else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_sentences_are_predicted_as_in_one_thread(joint):
    model = joint.build_model(seed=1)
    sentences = joint.random_sentences(2, [4, 0, 31, 1, 60, 9, 9, 45, 2, 17, 5] * 20)

    def predict(workers: BatchWorkers | None, pieces: int):
        maker = ExampleMaker(joint.tokenizer(), None, 40)
        found = predict_sentences(model, maker, sentences, StreamSettings(batch_pieces=pieces, workers=workers))
        return [(s, [x.probability for x in (*s.entities, *s.relations)]) for s in found]

    workers = BatchWorkers(2)
    pieces = workers.batch_pieces(4096, count_pieces(make_examples(sentences, joint.tokenizer(), None, 40)))
    assert predict(workers, 4096) == predict(None, pieces)
