"""Streams end: by their size, by their pace; commands behind `pipe:` too."""

from __future__ import annotations

import io
import time

import pytest

from spe_dist.utils.reading.bounded import TooLarge, TooSlow, chunks, open_pipe


class Dripping:
    """A stream that gives one byte at a time, for ever."""

    def read(self, size: int, /) -> bytes:
        time.sleep(0.01)
        return b"x"


def test_bytes_arrive_up_to_the_limit_and_not_one_more():
    data = bytes(3 << 20)
    assert b"".join(chunks(io.BytesIO(data), len(data))) == data
    with pytest.raises(TooLarge, match="more than the 3,145,727 bytes"):
        list(chunks(io.BytesIO(data), len(data) - 1))


def test_a_stream_that_drips_ends_after_the_time_limit():
    began = time.monotonic()
    with pytest.raises(TooSlow, match="bytes arrived in"):
        list(chunks(Dripping(), 1 << 30, timeout_s=0.3))
    assert time.monotonic() - began < 3


def test_a_slow_start_is_no_fault_while_bytes_come_fast_enough():
    class Starting(Dripping):
        def read(self, size: int, /) -> bytes:
            time.sleep(0.05)
            return bytes(1000)

    stream = chunks(Starting(), 1 << 30, timeout_s=0.2)
    assert sum(len(next(stream)) for _ in range(10)) == 10_000


def test_the_output_of_a_command_is_read_to_its_end():
    with open_pipe("printf abc; sleep 0.1; printf def") as pipe:
        assert b"".join(chunks(pipe, 100)) == b"abcdef"
    with pytest.raises(OSError, match="ended with status 3"), open_pipe("printf abc; exit 3") as pipe:
        list(chunks(pipe, 100))


def test_a_command_that_says_nothing_or_too_much_is_ended_with_what_it_started(tmp_path):
    mark = tmp_path / "mark"
    command = f"(sleep 2; touch {mark}) & sleep 60"
    with pytest.raises(TooSlow, match=r"nothing arrived in 0\.2 s"), open_pipe(command, timeout_s=0.2) as pipe:
        list(chunks(pipe, 100))
    with pytest.raises(TooLarge), open_pipe("yes") as pipe:
        list(chunks(pipe, 1 << 20))
    time.sleep(2.3)
    assert not mark.exists(), "what the command had started went on"
