"""What a file holds, by its first bytes; its name decides only where content does not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

from spe_dist.data.text.formats.columnar import ARROW_MARKS, PARQUET_MARK, columnar_lines
from spe_dist.data.text.formats.json_values import DAMAGE_REMEDY, json_lines
from spe_dist.data.text.formats.tables import (
    TABLE_SUFFIXES,
    Table,
    find_table,
    looks_like_table,
    table_lines,
    without_mark,
)
from spe_dist.data.text.markup import recognise_markup

Format = Literal["text", "jsonl", "json", "csv", "parquet", "arrow", "wikiextractor", "wikitext"]
FormatChoice = Literal["auto", "text", "jsonl", "json", "csv", "parquet", "arrow", "wikiextractor", "wikitext"]
RECORD_UNITS: dict[Format, str] = {"jsonl": "line", "json": "item", "csv": "row", "parquet": "row", "arrow": "row"}
NAMES: dict[Format, str] = {
    "text": "plain text",
    "jsonl": "JSON lines",
    "json": "JSON (a list, or objects over several lines)",
    "csv": "table",
    "parquet": "Parquet",
    "arrow": "Arrow",
    "wikiextractor": "articles of WikiExtractor",
    "wikitext": "WikiText",
}

HEAD_BYTES = 256 << 10
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
Chunks = Iterator[tuple[bytes, int]]

_JSON = re.compile(r'(?:\[\s*)?\{\s*(?:"|$)|\[\s*\]?$')
_JSON_STRINGS = re.compile(r'\[\s*"(?:[^"\\\n]|\\.)*"\s*(?:,\s*(?:["{\[\d-]|true|false|null)|\]\s*\Z)')
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class Head:
    """The first bytes of a file, decompressed."""

    data: bytes
    is_whole: bool

    @property
    def text(self) -> str:
        return self.data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").replace("\r\n", "\n")


def take_head(chunks: Chunks) -> tuple[Head, Chunks]:
    """The head of a file, and all its chunks."""
    taken: list[tuple[bytes, int]] = []
    size = 0
    for chunk, position in chunks:
        taken.append((chunk, position))
        size += len(chunk)
        if size >= HEAD_BYTES:
            break
    data = b"".join(chunk for chunk, _ in taken)
    return Head(data[:HEAD_BYTES], size < HEAD_BYTES), chain(taken, chunks)


def recognise(head: Head, name: str, text_field: str = "text") -> Format:
    """What a file with this head and name holds; `text_field` names the column of a table that is not named so."""
    if head.data.startswith(PARQUET_MARK):
        return "parquet"
    if head.data.startswith(ARROW_MARKS):
        return "arrow"
    suffixes = [suffix.lower() for suffix in Path(name).suffixes]
    if any(suffix in TABLE_SUFFIXES for suffix in suffixes):
        return "csv"
    text = head.text.lstrip()
    if any(suffix in JSON_SUFFIXES for suffix in suffixes):
        return json_format(head)
    first = text.partition("\n")[0].strip()
    if _JSON_STRINGS.match(text):
        return "json"
    if _JSON.match(first):
        return json_format(head)
    if first.startswith(("<", "=")):
        return recognise_markup(text.split("\n")) or "text"
    return "csv" if looks_like_table(head.text, head.is_whole, text_field) else "text"


def json_format(head: Head) -> Format:
    """`json` where a list begins, or an object that goes on in the next line; else `jsonl`."""
    text = head.text.lstrip()
    first, _, rest = text.partition("\n")
    if first.startswith("["):
        return "json"
    if not first.startswith("{") or not rest.strip() or _begins_with_value(first):
        return "jsonl"
    return "json" if first.rstrip()[-1] in "{[," or _begins_with_value(text) else "jsonl"


def _begins_with_value(text: str) -> bool:
    try:
        _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def table_of(format: Format, head: Head, text_field: str, name: str) -> Table | None:
    """How a table is read, None for a file of another format.

    Raises:
        DataError: the table has no such column.
    """
    return find_table(head.text, head.is_whole, text_field, name) if format == "csv" else None


def record_lines(
    format: Format, table: Table | None, text_field: str, chunks: Chunks, path: Path, remedy: str = DAMAGE_REMEDY
) -> Chunks:
    """(bytes of lines, position in the file) of the chunks of a file: its records as JSON lines, all else as it is.

    Parquet and Arrow are read from the file at `path`, not from the chunks.

    Raises:
        DataError: the file is damaged, or pyarrow is missing.
    """
    if format == "json":
        return json_lines(chunks, str(path), remedy)
    if format == "csv":
        assert table is not None
        return table_lines(without_mark(chunks), table, text_field, path)
    if format == "parquet" or format == "arrow":
        return columnar_lines(path, format, text_field)
    return chunks


def described(format: Format, table: Table | None) -> str:
    """The format in words."""
    return f"{NAMES[format]} with {table}" if table else NAMES[format]
