"""Parquet and Arrow are read by column, nested ones by path."""

from __future__ import annotations

import builtins
import json

import pytest

from spe_dist.data.text.formats.columnar import columnar_lines
from spe_dist.errors import DataError

ROWS = [{"id": i, "body": {"paragraphs": [f"Text {i}.", "é 😀"]}, "n": 1.5} for i in range(3_000)]


def written(path, form):
    pyarrow = pytest.importorskip("pyarrow")
    for module in ("feather", "ipc", "parquet"):
        pytest.importorskip(f"pyarrow.{module}")
    table = pyarrow.Table.from_pylist(ROWS)
    if form == "parquet":
        pyarrow.parquet.write_table(table, path, row_group_size=500)
    elif form == "feather":
        pyarrow.feather.write_feather(table, str(path))
    else:
        with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=1_300)
    return path


@pytest.mark.parametrize("form", ["parquet", "feather", "stream"])
def test_rows_come_in_order_with_their_text_and_id(tmp_path, form):
    path = written(tmp_path / "a", form)
    batches = list(columnar_lines(path, "parquet" if form == "parquet" else "arrow", "body.paragraphs"))
    rows = [json.loads(line) for data, _ in batches for line in data.splitlines()]
    assert rows == [{"body": row["body"], "id": row["id"]} for row in ROWS] and len(batches) > 2


@pytest.mark.parametrize("form", ["parquet", "stream"])
def test_a_missing_column_and_damage_are_errors(tmp_path, form):
    path = written(tmp_path / "a", form)
    kind = "parquet" if form == "parquet" else "arrow"
    with pytest.raises(DataError, match=r"no text under 'text'; its fields: 'id', 'body', 'n'"):
        list(columnar_lines(path, kind, "text"))
    path.write_bytes(path.read_bytes()[:1_000])
    with pytest.raises(DataError, match=rf"a is a damaged {kind} file"):
        list(columnar_lines(path, kind, "body.paragraphs"))


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"PAR1")
    real = builtins.__import__

    def without_pyarrow(name, *arguments, **named):
        if name.partition(".")[0] == "pyarrow":
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without_pyarrow)
    with pytest.raises(DataError, match=r"needs the package pyarrow; pip install 'spe-dist\[arrow\]'"):
        list(columnar_lines(tmp_path / "a", "parquet", "text"))


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_the_same_megabytes_in_every_row_are_read_row_by_row(tmp_path, monkeypatch, form):
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    text, rows = "x y " * (1 << 18), 10_000
    words = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * rows, pyarrow.int32()), [text])
    table = pyarrow.table({"text": words})
    path = tmp_path / "a"
    if form == "parquet":
        pyarrow.parquet.write_table(table, path, compression="zstd")
    else:
        with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    lines, _ = next(columnar_lines(path, form, "text"))
    assert path.stat().st_size < 2 << 20 and lines == json.dumps({"text": text}).encode() + b"\n"
    monkeypatch.setattr("spe_dist.data.text.formats.columnar.MAX_CELL_BYTES", 1000)
    with pytest.raises(DataError, match="a has a row of more than"):
        next(columnar_lines(path, form, "text"))


def test_texts_that_run_over_each_other_or_are_no_utf8_are_damage(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    for offsets, data in (([0, 2**30, 4], b"abcd"), ([0, -5, 4], b"abcd"), ([0, 2, 4], b"ab\xff\xfe")):
        buffers = [None, pyarrow.array(offsets, pyarrow.int32()).buffers()[1], pyarrow.py_buffer(data)]
        texts = pyarrow.Array.from_buffers(pyarrow.string(), 2, buffers)
        batch = pyarrow.record_batch([texts], ["text"])
        path = tmp_path / "a.arrow"
        with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, batch.schema) as writer:
            writer.write_batch(batch)
        with pytest.raises(DataError, match="a damaged arrow file"):
            list(columnar_lines(path, "arrow", "text"))
