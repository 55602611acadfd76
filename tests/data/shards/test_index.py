"""The index of blocks: a table of numbers over a mapped file, however it is cut, joined, pickled or damaged."""

from __future__ import annotations

import io
import os
import pickle

import numpy as np
import pytest

from spe_dist.data.shards.index import COLUMNS, BlockEntry, BlockTable, IndexEntry
from spe_dist.errors import DataError
from spe_dist.utils.files import file_sha256


def entries(count: int, first: int = 0) -> list[BlockEntry]:
    return [
        BlockEntry(f"{n:08d}.npz", 512 * n, 500 + n, 4_000_000_000 + n, 10 + n, 20 + n, 30 + n, f"{n:064x}")
        for n in range(first, first + count)
    ]


def test_a_table_gives_its_entries_back_from_memory_and_from_its_file(tmp_path):
    rows = entries(7)
    table = BlockTable.of(rows)
    mapped = BlockTable.load(tmp_path / "blocks.npy", table.save(tmp_path / "blocks.npy"))
    for found in (table, mapped, pickle.loads(pickle.dumps(mapped)), BlockTable.from_lists(table.to_lists())):
        assert list(found) == rows and found == table and found.has_sha256
        assert found.offsets_B.tolist() == [row.offset for row in rows]
        assert found.total("sentences") == sum(row.sentences for row in rows)
    assert np.load(tmp_path / "blocks.npy", allow_pickle=False).shape == (len(COLUMNS), 7)


def test_parts_of_a_table_are_views_and_can_be_joined():
    rows = entries(9)
    table = BlockTable.of(rows)
    part = table[2:6]
    assert list(part) == rows[2:6] and part[-1] == rows[5] and list(part[1:2]) == rows[3:4] and len(part[3:1]) == 0
    assert np.shares_memory(part.numbers_CB, table.numbers_CB)
    assert BlockTable.joined([part, table[:0], table[6:]]) == table[2:]
    assert list(BlockTable.joined([])) == []
    with pytest.raises(IndexError):
        part[4]


def test_tables_without_sha256_join_without_it():
    old = BlockTable.of([BlockEntry("00000000.npz", 512, 1, 2, 3, 4, 5)])
    joined = BlockTable.joined([BlockTable.of(entries(2, 1)), old])
    assert not joined.has_sha256 and [entry.sha256 for entry in joined] == ["", "", ""] and joined[2] == old[0]


def test_a_pickle_of_a_mapped_table_is_small_and_notices_another_file(tmp_path):
    file = tmp_path / "blocks.npy"
    mapped = BlockTable.load(file, BlockTable.of(entries(5_000)).save(file))
    parcel = pickle.dumps([mapped, mapped[:10], mapped[10:]])
    assert len(parcel) < 2_000
    whole, first, rest = pickle.loads(parcel)
    assert whole == mapped and first == mapped[:10] and rest == mapped[10:]
    os.utime(file, (1, 1))
    with pytest.raises(DataError, match="changed while it is in use"):
        pickle.loads(parcel)


@pytest.mark.parametrize("form", ["pickle", "objects", "floats", "flat", "columns", "archive", "text", "short"])
def test_a_file_of_another_form_is_no_index_and_runs_nothing(tmp_path, form):
    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "it ran"),)

    file, stream = tmp_path / "blocks.npy", io.BytesIO()
    numbers = np.zeros((len(COLUMNS), 4), "<u4")
    if form == "pickle":
        stream.write(pickle.dumps(Harmful()))
    elif form == "objects":
        np.save(stream, np.array([[Harmful()]] * len(COLUMNS), dtype=object), allow_pickle=True)
    elif form == "archive":
        np.savez(stream, numbers)
    elif form == "text":
        stream.write(b"<html>")
    else:
        arrays = {"floats": numbers.astype("<f4"), "flat": numbers[0], "columns": numbers[:-1], "short": numbers}
        np.save(stream, arrays[form])
    file.write_bytes(stream.getvalue()[: -1 if form == "short" else None])
    entry = IndexEntry(file.name, file.stat().st_size, file_sha256(file))
    with pytest.raises(DataError, match=r"blocks\.npy is not an index of blocks"):
        BlockTable.load(file, entry)
    assert not (tmp_path / "it ran").exists()
