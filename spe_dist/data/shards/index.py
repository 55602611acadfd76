"""`blocks.npy`: where every block of a folder of shards lies and what it holds, one column of numbers for each fact.

A file beside `manifest.json`, mapped into memory: a million blocks are 60 MB that all processes of a node share, and a
process reads only the pages that it needs. It is a plain array of numbers (`numpy.load`): nothing in it can run code.

Legend of the shape suffixes: C columns, B blocks
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from spe_dist.errors import DataError
from spe_dist.utils.files import atomic_file, file_sha256
from spe_dist.utils.reading.files import open_file
from spe_dist.utils.reading.json_file import shown

INDEX_NAME = "blocks.npy"
TAR_BLOCK_BYTES = 512
COUNTS = ("member", "offset_512", "bytes", "crc32", "sentences", "words", "pieces")
DIGEST = tuple(f"sha256_{word}" for word in range(8))  # the 32 bytes of a block's SHA-256, four a column
COLUMNS = (*COUNTS, *DIGEST)
NUMBER = np.dtype("<u4")
REMEDY = "fetch it again or make the shards again"


@dataclass(frozen=True)
class BlockEntry:
    """One member of a shard: where its bytes are and what they hold."""

    member: str
    offset: int  # bytes: where the member's data starts in the tar
    bytes: int
    crc32: int
    sentences: int
    words: int
    pieces: int
    sha256: str = ""  # shards of format version 1 have none


@dataclass(frozen=True)
class IndexEntry:
    """The index file, as the manifest describes it."""

    name: str
    bytes: int
    sha256: str
    columns: tuple[str, ...] = COLUMNS


def member_name(number: int) -> str:
    """Name of the tar member with this number."""
    return f"{number:08d}.npz"


@dataclass(frozen=True, eq=False)
class _Columns:
    """numbers_CB, and the file that they are mapped from: then a pickle holds its name alone."""

    numbers_CB: np.ndarray
    file: Path | None = None
    state: tuple[int, int] | None = None  # of the file: bytes, time of its last change in ns
    mapping: mmap.mmap | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "numbers_CB": None if self.file else self.numbers_CB, "mapping": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.file:
            if _state(self.file) != self.state:
                raise DataError(f"{self.file} was changed while it is in use; start again")
            self.__dict__["numbers_CB"], self.__dict__["mapping"] = _mapped(self.file)


class BlockTable(Sequence[BlockEntry]):
    """Blocks one behind the other; `table[i]` is an entry, `table[a:b]` a table over the same memory."""

    def __init__(self, columns: _Columns, start: int = 0, end: int | None = None) -> None:
        self._columns = columns
        self._start = start
        self._end = columns.numbers_CB.shape[1] if end is None else end

    @classmethod
    def of(cls, entries: Iterable[BlockEntry]) -> BlockTable:
        """A table in memory.

        Raises:
            ValueError: a number or a name does not fit the format.
        """
        rows = list(entries)
        digests = [bytes.fromhex(entry.sha256) for entry in rows]
        has_digests = bool(rows) and all(len(digest) == hashlib.sha256().digest_size for digest in digests)
        columns = [
            [_number_of(entry.member) for entry in rows],
            [_in_tar_blocks(entry.offset) for entry in rows],
            *([getattr(entry, name) for entry in rows] for name in COUNTS[2:]),
        ]
        numbers_CB = np.array(columns).reshape(len(COUNTS), len(rows))
        if numbers_CB.size and (numbers_CB.dtype.kind != "i" or numbers_CB.min() < 0 or numbers_CB.max() >= 1 << 32):
            raise ValueError("a block's numbers are not whole numbers from 0 to 2**32 - 1")
        parts = [numbers_CB.astype(NUMBER)]
        if has_digests or not rows:
            words_BC = np.frombuffer(b"".join(digests), dtype=NUMBER).reshape(len(rows), len(DIGEST))
            parts.append(words_BC.T)
        return cls(_Columns(np.ascontiguousarray(np.concatenate(parts))))

    @classmethod
    def joined(cls, tables: Sequence[BlockTable]) -> BlockTable:
        """One table in memory of several; without SHA-256 where one of them has none."""
        n_columns = min((table.numbers_CB.shape[0] for table in tables), default=len(COLUMNS))
        parts = [np.empty((n_columns, 0), dtype=NUMBER), *(table.numbers_CB[:n_columns] for table in tables)]
        return cls(_Columns(np.concatenate(parts, axis=1)))

    @classmethod
    def from_lists(cls, columns: Mapping[str, Sequence[int] | np.ndarray]) -> BlockTable:
        """What `to_lists` gave. ValueError where it is no such thing."""
        names = COLUMNS if DIGEST[0] in columns else COUNTS
        if set(columns) != set(names):
            raise ValueError(f"columns {sorted(columns)}")
        return cls(_Columns(np.array([columns[name] for name in names], dtype=NUMBER)))

    def to_lists(self) -> dict[str, list[int]]:
        """The columns by name, for JSON."""
        return {name: numbers_B.tolist() for name, numbers_B in zip(COLUMNS, self.numbers_CB, strict=False)}

    @classmethod
    def load(cls, file: Path, entry: IndexEntry, check: bool = True) -> BlockTable:
        """Map the index file; `check` compares its SHA-256 with the manifest's.

        Raises:
            DataError: it is missing, damaged, or no such index.
        """
        try:
            state = _state(file)
            if state[0] != entry.bytes:
                raise DataError(f"{file} has {state[0]:,} bytes instead of {entry.bytes:,}; {REMEDY}")
            if check and file_sha256(file) != entry.sha256:
                raise DataError(f"{file} is damaged (its SHA-256 is not the manifest's); {REMEDY}")
        except OSError as error:
            raise DataError(f"{file} cannot be read ({error.strerror}): it belongs to the shards; {REMEDY}") from error
        if tuple(entry.columns) != COLUMNS:
            raise DataError(f"{file} has the columns {shown(list(entry.columns))}, this program reads {list(COLUMNS)}")
        numbers_CB, mapping = _mapped(file)
        return cls(_Columns(numbers_CB, file.absolute(), state, mapping))

    def save(self, file: Path) -> IndexEntry:
        """Write the index file, whole or not at all."""
        with atomic_file(file) as written, open(written, "wb") as stream:
            np.lib.format.write_array(stream, np.ascontiguousarray(self.numbers_CB), version=(1, 0), allow_pickle=False)
        return IndexEntry(file.name, file.stat().st_size, file_sha256(file))

    def release(self) -> None:
        """Count pages that were read no longer as this process's memory; they stay in the node's page cache."""
        if self._columns.mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._columns.mapping.madvise(mmap.MADV_DONTNEED)

    @property
    def numbers_CB(self) -> np.ndarray:
        """uint32: the columns of `COLUMNS`, those of the digest only where `has_sha256`."""
        return self._columns.numbers_CB[:, self._start : self._end]

    @property
    def has_sha256(self) -> bool:
        """Whether blocks have a checksum that nobody can forge, so that each can be read alone from anywhere."""
        return self._columns.numbers_CB.shape[0] == len(COLUMNS)

    @property
    def offsets_B(self) -> np.ndarray:
        """int64: byte in the shard at which each block starts."""
        return self.column("offset_512").astype(np.int64) * TAR_BLOCK_BYTES

    def column(self, name: str) -> np.ndarray:
        """uint32 [B]: one of `COUNTS`, a view."""
        return self.numbers_CB[COUNTS.index(name)]

    def total(self, name: str) -> int:
        """Sum of a column."""
        return int(self.column(name).sum(dtype=np.int64))

    def __len__(self) -> int:
        return self._end - self._start

    @overload
    def __getitem__(self, index: int) -> BlockEntry: ...
    @overload
    def __getitem__(self, index: slice) -> BlockTable: ...
    def __getitem__(self, index: int | slice) -> BlockEntry | BlockTable:
        if isinstance(index, slice):
            start, end, step = index.indices(len(self))
            assert step == 1
            return BlockTable(self._columns, self._start + start, self._start + max(start, end))
        position = range(self._start, self._end)[index]
        numbers_C = self._columns.numbers_CB[:, position]
        number, offset_512, size, crc32, sentences, words, pieces = numbers_C[: len(COUNTS)].tolist()
        digest = numbers_C[len(COUNTS) :].tobytes().hex()
        return BlockEntry(
            member_name(number), offset_512 * TAR_BLOCK_BYTES, size, crc32, sentences, words, pieces, digest
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BlockTable) and np.array_equal(self.numbers_CB, other.numbers_CB)

    def __hash__(self) -> int:
        return hash(self.numbers_CB.tobytes())

    def __repr__(self) -> str:
        return f"BlockTable({len(self)} blocks)"


def _number_of(member: str) -> int:
    stem = member.removesuffix(".npz")
    if not stem.isascii() or not stem.isdigit() or member_name(int(stem)) != member:
        raise ValueError(f"a block named {member!r}")
    return int(stem)


def _in_tar_blocks(offset: int) -> int:
    whole, rest = divmod(offset, TAR_BLOCK_BYTES)
    if rest:
        raise ValueError(f"a block that starts at byte {offset}, inside a block of the tar")
    return whole


def _state(file: Path) -> tuple[int, int]:
    status = os.stat(file)
    return status.st_size, status.st_mtime_ns


def _mapped(file: Path) -> tuple[np.ndarray, mmap.mmap]:
    """numbers_CB over the mapped file."""
    try:
        with open_file(file) as stream:
            if np.lib.format.read_magic(stream) != (1, 0):
                raise ValueError("another version of .npy")
            shape, by_columns, dtype = np.lib.format.read_array_header_1_0(stream)
            if dtype != NUMBER or by_columns or len(shape) != 2 or shape[0] != len(COLUMNS):
                raise ValueError(f"{dtype} of shape {shape}")
            mapping = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            return np.frombuffer(mapping, NUMBER, shape[0] * shape[1], stream.tell()).reshape(shape), mapping
    except (ValueError, OSError, EOFError, OverflowError, RecursionError, MemoryError) as error:
        raise DataError(f"{file} is not an index of blocks ({error}); {REMEDY}") from error
