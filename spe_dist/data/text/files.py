"""Text files of any kind as a sequence of parts: some MiB of whole lines, the same for every run.

A part may span files. Parts are what work is divided by, so they depend on nothing but the files and the unit.
"""

from __future__ import annotations

import bz2
import glob
import lzma
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from spe_dist.errors import DataError
from spe_dist.utils.reading.lfs import fault, is_pointer
from spe_dist.utils.wording import how_many

TEXT_SUFFIXES = (
    *(".txt", ".text", ".tok", ".jsonl", ".ndjson", ".json"),
    *(".csv", ".tsv", ".tab", ".parquet", ".arrow"),
)
COMPRESSED_SUFFIXES = (".gz", ".xz", ".zst", ".bz2")
PART_BYTES = 2 << 20
MAX_LINE_BYTES = 32 << 20
_READ_BYTES = 1 << 20
_PACKED_READ_BYTES = 16 << 10


@dataclass(frozen=True)
class FileSlice:
    """Whole lines of one file."""

    file: int  # index into the list of files
    first_line: int  # number of the first of them in the file, from 1
    data: bytes


@dataclass(frozen=True)
class Part:
    """The unit of work: consecutive lines of consecutive files."""

    index: int
    slices: tuple[FileSlice, ...]
    read_bytes: int  # of the files as they lie on disk, up to the end of this part


class PartStart(NamedTuple):
    """Where a part begins."""

    number: int
    file: int  # index into the list of files
    slice: int  # of that file, from 0


FIRST_PART = PartStart(0, 0, 0)
ChunksOf = Callable[[Path], Iterator[tuple[bytes, int]]]


def find_files(inputs: Sequence[str], leave_out: Path | None = None) -> list[Path]:
    """The files that arguments name: files, folders (all text files in them, at any depth) and globs; none twice.

    Order: as given, inside a folder or glob by name. What lies in the folder `leave_out` (the output, where it is
    inside an input folder) is no input.

    Raises:
        DataError: an argument gives no file, or one that may not be read.
    """
    found: dict[Path, Path] = {}  # by where they really lie
    for argument in inputs:
        path = Path(argument).expanduser()
        if path.is_dir():
            files = [file for file in _visible_files(path) if is_text_name(file)]
        elif path.exists():
            files = [path]
        else:
            files = [Path(name) for name in sorted(glob.glob(str(path), recursive=True)) if Path(name).is_file()]
        files = [file for file in files if not _lies_in(file, leave_out)]
        if not files:
            reason = "holds no text file" if path.is_dir() else "does not exist"
            raise DataError(
                f"input {argument} {reason}; give files, folders or globs of text ({', '.join(TEXT_SUFFIXES)}, "
                f"plain or {', '.join(COMPRESSED_SUFFIXES)})"
            )
        for file in files:
            if not os.access(file, os.R_OK):
                raise DataError(f"input {file} may not be read; change its permissions")
            found.setdefault(file.resolve(), file)
    if not found:
        raise DataError("no input was given; name at least one file, folder or glob of text")
    return list(found.values())


def warn_of_left_out_files(inputs: Sequence[str], leave_out: Path | None = None) -> None:
    """Warn of files of the folders among `inputs` that `find_files` passes over: their names are not those of text."""
    folders = (path for path in (Path(argument).expanduser() for argument in inputs) if path.is_dir())
    files = [
        file
        for folder in folders
        for file in _visible_files(folder)
        if not is_text_name(file) and not _lies_in(file, leave_out)
    ]
    if files:
        names = ", ".join(file.name for file in files[:3])
        print(
            f"warning: left out {how_many(len(files), 'file')} of the input folders, not named like text ({names}); to "
            "include such files, give them by name or by a glob",
            file=sys.stderr,
        )


def refuse_pipes(files: Sequence[Path]) -> None:
    """Refuse what gives its content only once: sampling its first lines would lose them.

    Raises:
        DataError: a file is a pipe or device.
    """
    for file in files:
        if not file.is_file():
            raise DataError(f"input {file} is a pipe or device, but text is read more than once; write it to a file")


def _visible_files(folder: Path) -> list[Path]:
    """All files in a folder, at any depth, by name; none that is hidden or lies in a hidden folder."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return [file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts)]


def _lies_in(file: Path, folder: Path | None) -> bool:
    return folder is not None and file.resolve().is_relative_to(folder.resolve())


def is_text_name(file: Path) -> bool:
    """Whether a file has a text suffix (also before a compression's) or none at all (wikiextractor's wiki_00)."""
    plain = file.with_suffix("") if file.suffix in COMPRESSED_SUFFIXES else file
    return plain.suffix in TEXT_SUFFIXES or (plain.suffix == "" and file.name not in ("README", "LICENSE"))


class _Counted:
    """A stream, its first bytes given back to it, which knows its position also where it is a pipe."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head, self._stream, self._position = head, stream, 0

    def read(self, size: int = -1) -> bytes:
        data = self._head[: size if size >= 0 else None]
        self._head = self._head[len(data) :]
        data += self._stream.read(size - len(data) if size >= 0 else -1)
        self._position += len(data)
        return data

    def tell(self) -> int:
        return self._position


def read_chunks(path: Path, stream: BinaryIO | None = None) -> Iterator[tuple[bytes, int]]:
    """(decompressed bytes, bytes of the file read so far). The first bytes of a file decide what it is, not its name.

    A `stream` that is open already, standard input for one, is read in place of the file; `path` is then its name.
    Raises:
        DataError: it is damaged, cut short or UTF-16.
    """
    try:
        with nullcontext(stream) if stream is not None else open(path, "rb") as file:
            head = file.read(6)
            raw = _Counted(head, file)
            if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
                encoding = "UTF-32" if head[:4] == b"\xff\xfe\x00\x00" else "UTF-16"
                raise DataError(f"{path} is {encoding} text; convert it to UTF-8 (iconv -f {encoding} -t UTF-8)")
            compression = _compression(head, path)
            if compression is None:
                while chunk := raw.read(_READ_BYTES):
                    if raw.tell() == len(chunk) and is_pointer(chunk):
                        raise DataError(fault(path))
                    yield chunk, raw.tell()
            else:
                yield from _decompressed(raw, *compression, path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _compression(head: bytes, path: Path) -> tuple[Callable[[], Any], type[Exception]] | None:
    """What makes a decompressor for one stream of a file that begins so, and its error; None for a plain file."""
    if head[:2] == b"\x1f\x8b":
        return lambda: zlib.decompressobj(wbits=16 + zlib.MAX_WBITS), zlib.error
    if head == b"\xfd7zXZ\x00":
        return lzma.LZMADecompressor, lzma.LZMAError
    if head[:3] == b"BZh":
        return bz2.BZ2Decompressor, OSError
    if head[:4] != b"\x28\xb5\x2f\xfd":
        return None
    try:
        import zstandard
    except ImportError as error:
        raise DataError(f"{path} is zstd-compressed; install the package zstandard, or decompress it") from error
    return lambda: zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj(), zstandard.ZstdError


def _decompressed(
    raw: Any, new_decompressor: Callable[[], Any], damage: type[Exception], path: Path
) -> Iterator[tuple[bytes, int]]:
    """Stream by stream: the packages' own files take one that is cut short (zstd) or damaged at the head of a further
    stream (xz, bz2) for a complete one, and keep back what stands before a damage. Zeros between streams are padding.
    """
    stream, rest = None, b""
    while data := rest or raw.read(_PACKED_READ_BYTES):
        if stream is None:
            data = data.lstrip(b"\0")
            if not data:
                rest = b""
                continue
            stream = new_decompressor()
        try:
            for chunk in _pieces(stream, data, damage):
                if chunk:
                    yield chunk, raw.tell()
        except damage as error:
            raise DataError(f"{path} is damaged: {error}; fetch it again") from error
        rest = stream.unused_data if stream.eof else b""
        stream = None if stream.eof else stream
    if stream is not None:
        raise DataError(f"{path} is cut short: its last compressed stream has no end; fetch it again")


def _pieces(stream: Any, data: bytes, damage: type[Exception]) -> Iterator[bytes]:
    """What a decompressor makes of some bytes, in pieces of bounded size: a few bytes can stand for gigabytes."""
    if hasattr(stream, "needs_input"):  # of xz and bz2
        yield stream.decompress(data, _READ_BYTES)
        while not stream.eof and not stream.needs_input:
            yield stream.decompress(b"", _READ_BYTES)
    elif damage is zlib.error:
        chunk = stream.decompress(data, _READ_BYTES)
        yield chunk
        while not stream.eof and (stream.unconsumed_tail or len(chunk) == _READ_BYTES):
            chunk = stream.decompress(stream.unconsumed_tail, _READ_BYTES)
            yield chunk
    else:  # zstd gives all at once, at most 128 KiB for every four bytes
        yield stream.decompress(data)


def read_parts(
    files: Sequence[Path],
    break_at: bytes = b"\n",
    part_bytes: int | None = None,
    start: PartStart = FIRST_PART,
    chunks: ChunksOf = read_chunks,
) -> Iterator[Part]:
    """All lines of all files as parts of about `part_bytes` (none: PART_BYTES), cut behind `break_at`.

    `chunks`: what gives the bytes of a file in lines. `start`: of the first part to read, as `part_starts` gives it;
    the same parts follow it as in a reading of all.
    """
    part_bytes = part_bytes or PART_BYTES
    slices: list[FileSlice] = []
    filled, index = 0, start.number
    done_bytes = sum(_size(path) for path in files[: start.file])
    for number in range(start.file, len(files)):
        line, position = 1, 0
        for i, (data, position) in enumerate(_cut(files[number], break_at, part_bytes, chunks)):
            first_line, line = line, line + data.count(b"\n")
            if number == start.file and i < start.slice:
                continue
            slices.append(FileSlice(number, first_line, data))
            filled += len(data)
            if _is_full(filled, part_bytes):
                yield Part(index, tuple(slices), done_bytes + position)
                slices, filled, index = [], 0, index + 1
        done_bytes += _size(files[number])
    if slices:
        yield Part(index, tuple(slices), done_bytes)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise DataError(
            f"{path} cannot be read any more: {error.strerror}; leave inputs as they are until all is read"
        ) from None


def slice_sizes(
    path: Path, break_at: bytes = b"\n", part_bytes: int | None = None, chunks: ChunksOf = read_chunks
) -> list[int]:
    """Bytes of the slices that `read_parts` cuts a file into."""
    return [len(data) for data, _ in _cut(path, break_at, part_bytes or PART_BYTES, chunks)]


def part_starts(sizes: Iterable[Sequence[int]], part_bytes: int | None = None) -> list[PartStart]:
    """Where the parts of `read_parts` begin, from the `slice_sizes` of all files in order."""
    starts: list[PartStart] = []
    filled = 0
    for number, file_sizes in enumerate(sizes):
        for i, size in enumerate(file_sizes):
            if not filled:
                starts.append(PartStart(len(starts), number, i))
            filled += size
            if _is_full(filled, part_bytes or PART_BYTES):
                filled = 0
    return starts


def _is_full(filled: int, part_bytes: int) -> bool:
    return 2 * filled >= part_bytes


def _unified_line_ends(chunks: Iterator[tuple[bytes, int]]) -> Iterator[tuple[bytes, int]]:
    """The chunks with every line end, of Windows or of an old Mac, as one newline."""
    open_end = b""
    for chunk, position in chunks:
        chunk = open_end + chunk
        open_end = b"\r" if chunk.endswith(b"\r") else b""  # the newline may begin the next chunk
        yield chunk.removesuffix(open_end).replace(b"\r\n", b"\n").replace(b"\r", b"\n"), position
    if open_end:
        yield b"\n", position


def _cut(path: Path, break_at: bytes, part_bytes: int, chunks: ChunksOf) -> Iterator[tuple[bytes, int]]:
    """One file as (whole lines of about `part_bytes`, bytes of the file read so far)."""
    held, position, is_first = bytearray(), 0, True
    for chunk, position in _unified_line_ends(chunks(path)):
        held += chunk.removeprefix(b"\xef\xbb\xbf") if is_first else chunk
        is_first = False
        while len(held) >= part_bytes:
            end = held.rfind(break_at, 0, part_bytes) + len(break_at)
            if end < len(break_at):
                end = held.rfind(b"\n", 0, part_bytes) + 1
            if end == 0:
                end = held.find(b"\n") + 1
            if end == 0 and len(held) > MAX_LINE_BYTES:
                raise DataError(f"{path} has a line of more than {MAX_LINE_BYTES >> 20} MiB; is it text?")
            if end == 0:
                break
            yield bytes(held[:end]), position
            del held[:end]
    if held:
        yield bytes(held), position
