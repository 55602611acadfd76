"""Parquet and Arrow files (of `datasets`, of Feather) as JSON lines: the columns of the text and of an id."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from spe_dist.data.text.formats.fields import no_text_message
from spe_dist.data.text.formats.tables import ID_COLUMNS, MAX_CELL_BYTES
from spe_dist.errors import DataError
from spe_dist.utils.wording import one_line

ROWS_AT_ONCE = 64  # few: a file of a kilobyte can hold the same megabytes in every row
BYTES_AT_ONCE = 1 << 20
PARQUET_MARK = b"PAR1"
ARROW_MARKS = (b"ARROW1\0\0", b"\xff\xff\xff\xff")  # of a file, of a stream


def columnar_lines(path: Path, form: Literal["parquet", "arrow"], text_field: str) -> Iterator[tuple[bytes, int]]:
    """(JSON lines of rows, position in the file), some rows at a time.

    Raises:
        DataError: pyarrow is not installed, the file is damaged, has no such column, or a row too large for a text.
    """
    pyarrow = _pyarrow(path)
    _check_file(path)
    size = path.stat().st_size
    try:
        batches = _parquet(path, text_field) if form == "parquet" else _arrow(path, text_field)
        for batch, share in batches:
            for lines in _lines(batch, path):
                yield lines, int(share * size)
    except DataError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:  # of names that are no UTF-8, dates
        raise DataError(f"{path} is a damaged {form} file: {one_line(error)}; get it again") from error


def _lines(batch: Any, path: Path) -> Iterator[bytes]:
    """The rows of a batch as JSON lines, about `BYTES_AT_ONCE` at a time."""
    names = batch.schema.names
    held, size = [], 0
    for cells in zip(*batch.columns, strict=True):
        line = json.dumps({name: cell.as_py() for name, cell in zip(names, cells, strict=True)}, default=str) + "\n"
        if len(line) > MAX_CELL_BYTES:
            raise DataError(f"{path} has a row of more than {MAX_CELL_BYTES >> 20} MiB; is it text? Divide its texts")
        held.append(line)
        size += len(line)
        if size >= BYTES_AT_ONCE:
            yield "".join(held).encode()
            held, size = [], 0
    if held:
        yield "".join(held).encode()


def _check_file(path: Path) -> None:
    """Raises DataError for what was recognised behind a compression or in a pipe, where its end cannot be looked at."""
    marks = (PARQUET_MARK, *ARROW_MARKS)
    head = b""
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(max(map(len, marks)))
    if not head.startswith(marks):
        raise DataError(f"{path}: Parquet and Arrow are read from plain files alone; decompress it, or write it to one")


def _pyarrow(path: Path) -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise DataError(
            f"{path} is Parquet or Arrow, which needs the package pyarrow; pip install 'spe-dist[arrow]', or convert "
            "it to JSON lines"
        ) from error
    return pyarrow


def _parquet(path: Path, text_field: str) -> Iterator[tuple[Any, float]]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        columns = _columns(file.schema_arrow, text_field, path)
        done, rows = 0, max(1, file.metadata.num_rows)
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=columns):
            done += batch.num_rows
            yield batch, done / rows


def _arrow(path: Path, text_field: str) -> Iterator[tuple[Any, float]]:
    import pyarrow

    with pyarrow.OSFile(str(path)) as file:
        is_file = file.read(len(ARROW_MARKS[0])) == ARROW_MARKS[0]
        file.seek(0)
        reader = pyarrow.ipc.open_file(file) if is_file else pyarrow.ipc.open_stream(file)
        columns = _columns(reader.schema, text_field, path)
        batches = map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader
        size = max(1, path.stat().st_size)
        for batch in batches:
            chosen = batch.select(columns)
            chosen.validate(full=True)  # offsets are followed unchecked: damaged ones end the process
            for start in range(0, chosen.num_rows, ROWS_AT_ONCE):
                yield chosen.slice(start, ROWS_AT_ONCE), file.tell() / size if not is_file else 0.0


def _columns(schema: Any, text_field: str, path: Path) -> list[str]:
    """The names of the columns that are read: that which holds the text field, and an id."""
    names = list(schema.names)
    root = text_field if text_field in names else text_field.partition(".")[0]
    if root not in names:
        raise DataError(f"{path}: {no_text_message(dict.fromkeys(names), text_field)}")
    return [root, *(name for name in ID_COLUMNS[:1] if name in names and name != root)]
