"""Tables are read by column, whatever stands between their cells and inside of them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spe_dist.data.text.formats.tables import Table, find_table, looks_like_table, table_lines
from spe_dist.errors import DataError

ROWS = [("1", 'He said, "Go."\nThen he left.'), ("2", "A; B | C, and \t so on"), ("3", "")]


def written(rows: list[tuple[str, ...]], delimiter: str = ",", end: str = "\n") -> str:
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter, lineterminator=end).writerows(rows)
    return file.getvalue()


def records(data: bytes, table: Table, chunk_bytes: int = 7, text_field: str = "text") -> list[dict]:
    chunks = ((data[i : i + chunk_bytes], i) for i in range(0, len(data), chunk_bytes))
    lines = b"".join(found for found, _ in table_lines(chunks, table, text_field, Path("t.csv"))).split(b"\n")
    return [json.loads(line) for line in lines if line]


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_column_is_found_by_its_name_whatever_parts_the_cells(delimiter, end):
    content = written([("id", "text"), *ROWS], delimiter, end)
    table = find_table(content, True, "text", "t.csv")
    assert table == Table(delimiter, True, True, 1, 0)
    assert records(content.encode(), table) == [{"text": text, "id": number} for number, text in ROWS]


def test_a_column_is_found_by_its_number_with_a_header_or_without_one():
    body = [(str(i), "A sentence of some words stands here.") for i in range(5)]
    assert not find_table(written(body), True, "2", "t.csv").has_header
    table = find_table(written([("number", "body"), *body]), True, "2", "t.csv")
    assert table.has_header and table.column == 1
    assert len(records(written(body).encode(), find_table(written(body), True, "2", "t.csv"), text_field="2")) == 5


def test_quotes_that_are_none_leave_the_rows_of_a_tsv_as_they_are():
    content = 'id\ttext\n1\t"Go. He left\n2\tTwo.\n3\t5" wide\n'
    table = find_table(content, True, "text", "t.tsv")
    assert not table.is_quoted
    assert [row["text"] for row in records(content.encode(), table)] == ['"Go. He left', "Two.", '5" wide']


def test_a_column_that_is_not_there_is_an_error_that_shows_the_first_row():
    with pytest.raises(DataError, match=r"t\.csv is read as a table with commas .* no column 'text' .*'id', 'body'"):
        find_table("id,body\n1,x\n", True, "text", "t.csv")


def test_a_quote_without_an_end_is_an_error(monkeypatch):
    monkeypatch.setattr("spe_dist.data.text.formats.tables.MAX_CELL_BYTES", 100)
    table = Table(",", True, True, 1)
    with pytest.raises(DataError, match=r"t\.csv, line .*damaged table.*is a quote left open"):
        records(b'id,text\n1,"' + b"a word \n" * 100, table)


def test_short_rows_and_cells_that_are_no_utf_8_stay_rows():
    data = b"id,text\n1\n2,\xff\n3,good\n"
    lines = next(table_lines(iter([(data, 1)]), Table(",", True, True, 1), "text", Path("t.csv")))[0].split(b"\n")
    assert lines == [b"{}", b'{"text": "\xff"}', b'{"text": "good"}', b""]


def test_plain_text_is_no_table_and_a_header_with_the_field_makes_one():
    assert looks_like_table("id,text\n1,a b\n2,c d\n", True, "text")
    for text in ("text, he said, is good\nand so, on, it went\n", "text\nsome, more\n", "text,more\nno comma\n", ""):
        assert not looks_like_table(text, True, "text")


CELLS = st.text(st.sampled_from('aé😀,;"\t\n |'), max_size=12)


@given(st.lists(CELLS, min_size=1, max_size=6), st.integers(1, 9))
@settings(max_examples=80, deadline=None)
def test_any_cells_come_back_as_they_were_written(cells, chunk_bytes):
    content = written([("id", "text"), *((str(i), cell) for i, cell in enumerate(cells))]).encode()
    assert [row["text"] for row in records(content, Table(",", True, True, 1), chunk_bytes)] == cells
