"""CSV and TSV as JSON lines: the columns of the text and of an id. Cells may hold line breaks in quotes.

Bytes are taken for characters (Latin-1), since all that counts here is ASCII: a cell that is no UTF-8 reaches the
reader of its line, which counts it.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from spe_dist.errors import DataError

MAX_CELL_BYTES = 32 << 20
DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
TABLE_SUFFIXES = (".csv", ".tsv", ".tab")
ID_COLUMNS = ("id", "doc_id", "doc_key")
_SAMPLED_ROWS = 50
_NAME = re.compile(r"[^\W\d][\w .:/#()-]{0,39}")
_PLAIN_NAME = re.compile(r"[^\W\d][\w.:-]{0,39}")
_FIRST_COLUMN_NUMBER = 1


@dataclass(frozen=True)
class Table:
    """How a table is read.

    column: of the text, from 0
    id_column: of an id that stands in the header, None where there is none
    """

    delimiter: str
    is_quoted: bool
    has_header: bool
    column: int
    id_column: int | None = None

    def __str__(self) -> str:
        header = "a header" if self.has_header else "no header"
        quotes = "" if self.is_quoted else ", no quotes"
        return f"{DELIMITERS[self.delimiter]} between cells, {header}{quotes}, text in column {self.column + 1}"


def find_table(head: str, is_whole: bool, text_field: str, name: str) -> Table:
    """How the table that begins so is read; `text_field` names its column, or gives its number from 1.

    Raises:
        DataError: it has no such column.
    """
    delimiter, is_quoted = _dialect(head, is_whole, name)
    rows = _rows(head, is_whole, delimiter, is_quoted)
    first = rows[0] if rows else []
    names = [cell.strip() for cell in first]
    if text_field in names:
        ids = [names.index(column) for column in ID_COLUMNS if column in names and column != text_field]
        return Table(delimiter, is_quoted, True, names.index(text_field), ids[0] if ids else None)
    if text_field.isdecimal() and _FIRST_COLUMN_NUMBER <= int(text_field) <= len(names):
        column = int(text_field) - _FIRST_COLUMN_NUMBER
        return Table(delimiter, is_quoted, _is_header(rows, column), column)
    if len(names) == 1 and not _is_header(rows, 0):
        return Table(delimiter, is_quoted, False, 0)
    shown = ", ".join(repr(cell[:40]) for cell in names[:8]) or "nothing"
    raise DataError(
        f"{name} is read as a table with {DELIMITERS[delimiter]} between cells and has no column {text_field!r} (its "
        f"first row: {shown}); --text_field names the column of the text, or gives its number from 1"
    )


def looks_like_table(head: str, is_whole: bool, text_field: str) -> bool:
    """Whether a text that is not named so begins with a header that has the text field, and rows of as many cells."""
    first = head.partition("\n")[0]
    if not any(text_field in map(str.strip, first.replace('"', "").split(mark)) for mark in DELIMITERS):
        return False
    rows = _rows(head, is_whole, *_dialect(head, is_whole, ""))
    names = rows[0] if rows else []
    if len(rows) < 3 or len(names) < 2 or text_field not in names or not all(map(_PLAIN_NAME.fullmatch, names)):
        return False
    return all(len(row) == len(names) for row in rows)


def table_lines(
    chunks: Iterable[tuple[bytes, int]], table: Table, text_field: str, path: Path
) -> Iterator[tuple[bytes, int]]:
    """(JSON lines with the text and the id of rows, position in the file); a row without that cell is an empty object.

    Raises:
        DataError: a cell has no end.
    """
    position = [0]
    csv.field_size_limit(MAX_CELL_BYTES)
    reader = csv.reader(_lines(chunks, position), **_csv_arguments(table.delimiter, table.is_quoted))
    if table.has_header:
        next(reader, None)
    keys = [json.dumps(text_field) + ": ", f', "{ID_COLUMNS[0]}": ']
    held: list[str] = []
    size = 0
    try:
        for row in reader:
            line = _json_line(row, table, keys) if row else "\n"
            held.append(line)
            size += len(line)
            if size >= 1 << 20:
                yield "".join(held).encode("latin-1"), position[0]
                held, size = [], 0
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}: damaged table ({error}); is a quote left open? Repair it, or have it "
            "read as text"
        ) from None
    if held:
        yield "".join(held).encode("latin-1"), position[0]


def _json_line(row: Sequence[str], table: Table, keys: Sequence[str]) -> str:
    if len(row) <= table.column:
        return "{}\n"
    text = keys[0] + json.dumps(row[table.column], ensure_ascii=False)
    if table.id_column is not None and len(row) > table.id_column:
        text += keys[1] + json.dumps(row[table.id_column], ensure_ascii=False)
    return "{" + text + "}\n"


def _lines(chunks: Iterable[tuple[bytes, int]], position: list[int]) -> Iterator[str]:
    """The lines of a file with their ends; Windows' ends are as they are, inside of cells too."""
    rest = ""
    for chunk, position[0] in chunks:
        lines = (rest + chunk.decode("latin-1")).split("\n")
        rest = lines.pop()
        yield from (line + "\n" for line in lines)
        if len(rest) > MAX_CELL_BYTES:
            raise DataError(f"a table has a line of more than {MAX_CELL_BYTES >> 20} MiB; is it text? Break its lines")
    if rest:
        yield rest


def without_mark(chunks: Iterable[tuple[bytes, int]]) -> Iterator[tuple[bytes, int]]:
    """The chunks without a byte order mark."""
    is_first = True
    for chunk, position in chunks:
        yield chunk.removeprefix(b"\xef\xbb\xbf") if is_first else chunk, position
        is_first = False


def _dialect(head: str, is_whole: bool, name: str) -> tuple[str, bool]:
    """(delimiter, whether cells may be quoted): what gives most rows as many cells as the first has, more than one."""
    first, named = (",", "\t") if ".csv" in name.lower() else ("\t", ",")
    order = [first, named, ";", "|"]
    best: tuple[float, int] = (-1.0, 0)
    found = (first, True)
    for delimiter in order:
        for is_quoted in (True, False):
            rows = _rows(head, is_whole, delimiter, is_quoted)
            if not rows or len(rows[0]) < 2:
                continue
            alike = sum(1 for row in rows if len(row) == len(rows[0])) / len(rows)
            if (alike, len(rows)) > best:
                best, found = (alike, len(rows)), (delimiter, is_quoted)
    return found


def _rows(head: str, is_whole: bool, delimiter: str, is_quoted: bool) -> list[list[str]]:
    """The first rows that are not empty; the last one may be cut off and is none, unless the head is the whole."""
    csv.field_size_limit(MAX_CELL_BYTES)
    reader = csv.reader(io.StringIO(head, newline=""), **_csv_arguments(delimiter, is_quoted))
    try:
        rows = [row for row in islice(reader, 4 * _SAMPLED_ROWS) if row][: _SAMPLED_ROWS + 1]
    except csv.Error:
        return []
    return rows[:-1] if (not is_whole and len(rows) <= _SAMPLED_ROWS) or len(rows) > _SAMPLED_ROWS else rows


def _csv_arguments(delimiter: str, is_quoted: bool) -> dict[str, Any]:
    return {"delimiter": delimiter, "quoting": csv.QUOTE_MINIMAL if is_quoted else csv.QUOTE_NONE}


def _is_header(rows: Sequence[Sequence[str]], column: int) -> bool:
    """Whether the first row has names, and the text of the column below is of another kind: longer than they are."""
    if len(rows) < 2 or not all(_NAME.fullmatch(cell.strip()) for cell in rows[0]):
        return False
    below = sorted(len(row[column]) for row in rows[1:] if len(row) > column)
    return bool(below) and len(rows[0][column]) * 2 <= below[len(below) // 2]
