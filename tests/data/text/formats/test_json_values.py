"""JSON lists and objects over several lines become JSON lines, in parts of any size."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spe_dist.data.text.formats import json_values
from spe_dist.data.text.formats.json_values import json_lines
from spe_dist.errors import DataError


def lines_of(data: bytes, chunk_bytes: int) -> list[bytes]:
    chunks = ((data[i : i + chunk_bytes], i) for i in range(0, len(data), chunk_bytes))
    return b"".join(line for line, _ in json_lines(chunks, "a.json")).splitlines()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-10_000, 10_000) | st.text('aé😀"\\[]{},:\n', max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(VALUES, max_size=4), st.integers(1, 40), st.sampled_from([None, 1]), st.booleans())
@settings(max_examples=150, deadline=None)
def test_items_of_any_list_come_back_whatever_the_parts(values, chunk_bytes, indent, ascii_only):
    data = json.dumps(values, indent=indent, ensure_ascii=ascii_only).encode()
    assert [json.loads(line) for line in lines_of(data, chunk_bytes)] == values


@pytest.mark.parametrize("chunk_bytes", [1, 5, 1000])
def test_objects_one_behind_another_are_items(chunk_bytes):
    data = "\n".join(json.dumps({"a": i, "b": ["x"]}, indent=2) for i in range(5)).encode()
    assert [json.loads(line)["a"] for line in lines_of(b"\xef\xbb\xbf" + data, chunk_bytes)] == list(range(5))


@pytest.mark.parametrize("chunk_bytes", [1, 3, 1000])
@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('[{"a": 1},\n {"b" 2}]', "line 2, column 7"),
        ("[1, 2", "line 1, column 6"),
        ("[1 2]", "line 1, column 4"),
        ("[1,\n,2]", "line 2, column 1"),
        ("[1,]", "line 1, column 4"),
        ("[1] [2]", "line 1, column 5"),
        ('{"a": 1}\n,{"a": 2}', "line 2, column 1"),
        ('["a', "line 1, column 2"),
    ],
)
def test_damage_is_named_with_its_place(text, where, chunk_bytes):
    with pytest.raises(DataError, match=rf"a\.json, {where}: damaged JSON"):
        lines_of(text.encode(), chunk_bytes)


def test_no_more_than_a_value_is_held(monkeypatch):
    held = []
    keep = json_values._Values._drop

    def spy(self, end):
        keep(self, end)
        held.append(len(self._text))

    monkeypatch.setattr(json_values._Values, "_drop", spy)
    data = json.dumps([{"text": "word " * 20}] * 2_000).encode()
    assert len(lines_of(data, 1_000)) == 2_000 and max(held) < 1_200


def test_a_value_without_an_end_is_refused_before_memory_runs_out(monkeypatch):
    monkeypatch.setattr(json_values, "MAX_VALUE_BYTES", 10_000)
    read = []

    def chunks():
        yield b'["', 0
        for i in range(10_000):
            read.append(i)
            yield b"a" * 1_000, i

    with pytest.raises(DataError, match="damaged JSON"):
        list(json_lines(chunks(), "a.json"))
    assert len(read) < 50
