"""The roll call: who is named, who speaks, and when nobody ends."""

import contextlib
import threading
import time

import pytest

from spe_dist.distributed.joining import attendance
from spe_dist.distributed.joining.attendance import Attendance


class MemoryStore:
    """What the ranks met at; `hangs` once its rank is stopped."""

    def __init__(self):
        self.content, self.hangs, self.read = {}, threading.Event(), []

    def _wait(self):
        while self.hangs.is_set():
            time.sleep(0.01)

    def set(self, key, value):
        self._wait()
        self.content[key] = value.encode()

    def get(self, key):
        self._wait()
        self.read.append(key)
        return self.content[key]

    def check(self, keys):
        self._wait()
        return all(key in self.content for key in keys)


@pytest.fixture
def ranks(monkeypatch):
    """Three ranks that wait for at most 0.2 s, and the lines with which they end."""
    for name, seconds in (("POLL_S", 0.02), ("ANSWERS_S", 0.3), ("CALLER_S", 0.2), ("STORE_S", 0.8)):
        monkeypatch.setattr(attendance, name, seconds)
    store, lines = MemoryStore(), {}
    watched = [Attendance(lambda: store, rank, 3, 0.2, f"node{rank}", lambda line, r=rank: lines.update({r: line}))
               for rank in range(3)]  # fmt: skip
    yield store, watched, lines
    store.hangs.clear()
    for one in watched:
        with contextlib.suppress(RuntimeError):  # was never started: a rank that is stopped
            one.close()


def wait_for(lines, count):
    deadline = time.monotonic() + 10
    while len(lines) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)


def test_every_waiting_rank_names_the_one_that_does_not_answer(ranks):
    store, watched, lines = ranks
    for one in watched[:2]:
        one.step = 41
        one.start()
    store.set("node/2", "node2")  # it was there once
    with watched[0].waiting, watched[1].waiting:
        wait_for(lines, 2)
    assert lines.keys() == {0, 1}
    for rank, line in lines.items():
        assert line.startswith(f"rank {rank} has waited for 0.2 s (timeout_s) in step 41: rank 2 on node2 does not")
        assert "rank 0 " not in line.split(": ", 1)[1] and line.endswith("--resume auto")
    assert len([key for key in store.read if key.startswith("answer/")]) == 2  # one rank has read them for both


def test_a_roll_whose_caller_is_gone_is_read_by_the_others(ranks):
    store, watched, lines = ranks
    for one in watched[:2]:
        one.start()
    store.set("alarm", "2")
    with watched[0].waiting, watched[1].waiting:
        wait_for(lines, 2)
    assert lines.keys() == {0, 1} and all("rank 2 does not answer" in line for line in lines.values())


def test_who_came_later_speaks_with_the_first_that_has_waited_long_enough(ranks):
    _, watched, lines = ranks
    watched[1].timeout_s = 60.0  # it has most of it before it
    for one in watched[:2]:
        one.start()
    with watched[0].waiting, watched[1].waiting:
        wait_for(lines, 2)
    assert lines.keys() == {0, 1}


def test_a_rank_that_is_at_work_is_named_with_what_it_does(ranks):
    _, watched, lines = ranks
    for one in watched:
        one.start()
    watched[2].step = 7
    with watched[0].waiting, watched[1].waiting, watched[2].doing("loading data"):
        wait_for(lines, 2)
    assert lines.keys() == {0, 1}
    assert "rank 2 on node2 is loading data in step 7." in lines[0]


def test_a_store_that_does_not_answer_is_that_of_rank_0(ranks):
    store, watched, lines = ranks
    for one in watched[1:]:
        one.start()
    with watched[1].waiting, watched[2].waiting:
        store.hangs.set()
        wait_for(lines, 2)
    assert lines.keys() == {1, 2}
    assert "rank 0 does not answer (the ranks' store is with it)" in lines[1]


def test_where_all_answer_and_wait_nobody_ends(ranks, capfd):
    _, watched, lines = ranks
    for one in watched:
        one.start()
    with watched[0].waiting, watched[1].waiting, watched[2].waiting:
        time.sleep(1.0)
    assert lines == {}
    assert capfd.readouterr().err.count("and so have all others") == 3


def test_short_waits_one_after_the_other_raise_no_alarm(ranks):
    store, watched, lines = ranks
    watched[0].start()
    deadline = time.monotonic() + 0.8
    while time.monotonic() < deadline:
        with watched[0].waiting:
            time.sleep(0.03)
            with watched[0].waiting:
                time.sleep(0.03)
    assert lines == {} and "alarm" not in store.content


def test_an_inner_wait_does_not_begin_the_outer_one_again(ranks):
    _, watched, lines = ranks
    watched[0].start()
    with watched[0].waiting:
        began = watched[0]._waiting_since
        for _ in range(40):
            with watched[0].waiting:
                assert watched[0]._waiting_since == began
                time.sleep(0.02)
        wait_for(lines, 1)
    assert "rank 1 does not answer; rank 2 does not answer" in lines[0]


def test_what_another_thread_waits_for_is_not_taken_for_the_rank(ranks):
    _, watched, lines = ranks
    watched[0].start()
    ended = threading.Event()

    def save():
        with watched[0].waiting:
            ended.wait(5)

    saving = threading.Thread(target=save)
    saving.start()
    with watched[0].waiting:
        time.sleep(0.05)
    assert watched[0]._waiting_since is None
    time.sleep(0.4)
    ended.set()
    saving.join()
    assert lines == {} and watched[0]._waiting_since is None


def test_a_rank_that_leaves_by_itself_is_watched_no_more(ranks):
    _, watched, lines = ranks
    watched[0].start()
    with watched[0].waiting:
        attendance.close_all()
        time.sleep(0.6)
    assert lines == {} and not any(thread.is_alive() for thread in watched[0]._threads)
