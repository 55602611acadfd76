"""Lines of any system, cut from chunks of any size; what cannot be decoded is said."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spe_dist.data.text.lines import UNDECODABLE, Skips, decode_line, read_lines
from spe_dist.errors import DataError

PIECES = st.lists(st.sampled_from(["a", "\u00e9", " ", "\n", "\r", "\r\n"]), max_size=30).map("".join)


@given(PIECES, st.integers(1, 7))
@example("a\r\nb\r", 2)
@settings(max_examples=200, deadline=None)
def test_lines_and_their_ends_are_the_file_whatever_its_chunks(tmp_path_factory, text, chunk_bytes):
    path = tmp_path_factory.getbasetemp() / "lines.txt"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spe_dist.data.text.files._READ_BYTES", chunk_bytes)
        lines = list(read_lines(path, Skips()))
    assert "".join(line.text + line.end for line in lines) == text
    assert [line.text.strip() for line in lines] == [line.strip() for line in text.splitlines()]
    for line in lines:
        assert text[line.start :].startswith(line.text + line.end)
    assert [line.number for line in lines] == list(range(1, len(lines) + 1))


def test_lines_start_at_characters_not_at_bytes(tmp_path):
    path = tmp_path / "wide.txt"
    path.write_bytes("\u00e9\u00e9\n\U0001f600 a\r\n\u4e2d\r\rb".encode())
    starts = [(line.start, line.text) for line in read_lines(path, Skips())]
    assert starts == [(0, "\u00e9\u00e9"), (3, "\U0001f600 a\r"), (8, "\u4e2d"), (10, ""), (11, "b")]
    path.write_bytes(b"\xef\xbb\xbfb\xe9d\xc3\xa9\nafter")
    assert [line.start for line in read_lines(path, Skips(), skip_bad=True)] == [0, 5]


def test_a_line_that_cannot_be_decoded_is_an_error_or_counted(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"good\nb\xe9d\ngood")
    with pytest.raises(DataError, match=r"a\.txt, line 2 is not UTF-8 \(byte 0xe9\).*--skip_bad"):
        list(read_lines(path, Skips()))
    skips = Skips()
    assert [line.is_bad for line in read_lines(path, skips, skip_bad=True)] == [False, True, False]
    assert skips.counts == {UNDECODABLE: 1} and skips.bad_lines == 1 and skips.lines == 3


def test_utf16_without_a_mark_is_recognised():
    assert decode_line("some words".encode("utf-16-le"))[1].startswith("is UTF-16")
    assert decode_line(b"a zero \x00 byte") == ("a zero \x00 byte", "")
