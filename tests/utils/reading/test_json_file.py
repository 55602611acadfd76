"""Documents of any content give plain values, or one error of one line."""

from __future__ import annotations

import pytest

from spe_dist.errors import CheckpointError, DataError
from spe_dist.utils.reading.json_file import MAX_DEPTH, is_number, is_whole, parse_json, read_json, read_object


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not valid JSON"),
        ('{"a": 1} x', "column 10: Extra data"),
        (100_000 * "[", "nested more than 64 levels deep"),
        ((MAX_DEPTH + 1) * "[" + (MAX_DEPTH + 1) * "]", "nested more than 64 levels deep"),
        ('{"a": 1e999}', "1e999 is beyond the range of numbers"),
        ('{"a": NaN}', "NaN is not a number"),
        ('{"a": [-Infinity]}', "-Infinity is not a number"),
        (5_000 * "9", "a number of thousands of digits"),
        ('{"a": 1, "b": {"c": 2, "c": 3}}', 'the key "c" stands twice in one object'),
        (r'["\ud800"]', "half of a character"),
        (b"\xff\xfe{}", r"not UTF-8 text \(byte 0\)"),
        (65 * " ", "larger than 64 bytes"),
    ],
)
def test_what_cannot_be_used_is_one_line_with_reason_and_remedy(text, reason):
    with pytest.raises(DataError, match=rf"^the file .*{reason}.*; copy it again$") as caught:
        parse_json(text, "the file", "copy it again", max_bytes=64 if "larger" in reason else 1 << 20)
    assert "\n" not in str(caught.value)


def test_usual_documents_come_back_as_they_are():
    assert parse_json('{"a": [1, 2.5, null, true, "\\ud83d\\ude00"]}', "f", "r") == {"a": [1, 2.5, None, True, "😀"]}
    assert parse_json(b"\xef\xbb\xbf[]", "f", "r") == []
    assert parse_json(MAX_DEPTH * "[" + MAX_DEPTH * "]", "f", "r")


def test_a_file_is_refused_by_size_before_it_is_read_and_by_kind(tmp_path):
    file = tmp_path / "state.json"
    file.write_text("[1]")
    assert read_json(file, "r") == [1]
    with pytest.raises(CheckpointError, match="holds a list where an object is expected; copy it"):
        read_object(file, "copy it", CheckpointError)
    with file.open("wb") as opened:
        opened.truncate(1 << 40)  # a terabyte of nothing
    with pytest.raises(DataError, match="larger than 1 MiB"):
        read_json(file, "r", max_bytes=1 << 20)
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_json(tmp_path, "r")
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json", "r")


def test_a_truth_value_is_no_number_and_numbers_have_a_range():
    assert is_whole(3) and is_whole(0) and not any(map(is_whole, (True, 3.0, "3", None, -1, 10**30)))
    assert is_number(0.5, 0, 1) and is_number(1, 0, 1)
    assert not any(is_number(value, 0, 1) for value in (False, 2, float("nan"), "1", None, 10**400))
