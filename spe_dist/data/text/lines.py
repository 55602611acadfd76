"""The decoded lines of a file or of standard input, plain or compressed, as a stream."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from spe_dist.data.text.documents import UNDECODABLE, Skips
from spe_dist.data.text.files import MAX_LINE_BYTES, read_chunks
from spe_dist.errors import DataError

STANDARD_INPUT = "-"
SAMPLE_CHARACTERS = 256 << 10


class Line(NamedTuple):
    """A line without its line feed."""

    number: int  # from 1
    start: int  # its first character
    text: str
    is_bad: bool = False  # it could not be decoded


def shown_name(path: Path | str) -> str:
    """A file as messages name it."""
    return "standard input" if str(path) == STANDARD_INPUT else str(path)


def read_lines(path: Path, skips: Skips, skip_bad: bool = False) -> Iterator[Line]:
    """The decoded lines of a file, plain or compressed. DataError for one that is no UTF-8 text, unless `skip_bad`."""
    stream = None
    if str(path) == STANDARD_INPUT:
        if sys.stdin is None:
            raise DataError("standard input is closed; name a file, or pipe text in")
        stream = sys.stdin.buffer
    path = Path(shown_name(path))
    start = 0
    for number, data in enumerate(_byte_lines(path, read_chunks(path, stream)), start=1):
        skips.lines += 1
        try:
            text = data.decode("utf-8")
            fault = "is UTF-16 (every other byte is zero)" if "\0" in text and _is_utf16(data) else ""
        except UnicodeDecodeError as error:
            text, fault = data.decode("utf-8", "replace"), f"is not UTF-8 (byte 0x{data[error.start]:02x})"
        if fault and not skip_bad:
            raise DataError(
                f"{path}, line {number} {fault}; convert the file to UTF-8, or leave such lines out with --skip_bad"
            )
        if fault:
            skips.add_bad(UNDECODABLE, path, number, fault)
        yield Line(number, start, text, bool(fault))
        start += len(text) + 1


def _is_utf16(data: bytes) -> bool:
    """Whether a line is, by all appearance, UTF-16 without a mark, which reads as UTF-8 with zero bytes."""
    return len(data) >= 8 and any(data[::2]) != any(data[1::2])


def _byte_lines(path: Path, chunks: Iterable[tuple[bytes, int]]) -> Iterator[bytes]:
    """Lines without their line feeds; a line of any length is refused beyond a limit, so that memory is bounded."""
    held: list[bytes] = []
    held_bytes, is_first = 0, True
    for data, _ in chunks:
        chunk = data.removeprefix(b"\xef\xbb\xbf") if is_first else data
        is_first = False
        lines = chunk.split(b"\n")
        for line in lines[:-1]:
            yield b"".join(held) + line if held else line
            held, held_bytes = [], 0
        held.append(lines[-1])
        held_bytes += len(lines[-1])
        if held_bytes > MAX_LINE_BYTES:
            raise DataError(f"{path} has a line of more than {MAX_LINE_BYTES >> 20} MiB; is it text? Break its lines")
    if held_bytes:
        yield b"".join(held)


def take_sample(lines: Iterator[Line]) -> tuple[list[Line], Iterator[Line]]:
    """The first lines, and the rest; a fault among the first ones is raised where the rest begins."""
    sample: list[Line] = []
    characters = 0
    try:
        for line in lines:
            sample.append(line)
            characters += len(line.text) + 1
            if characters >= SAMPLE_CHARACTERS:
                break
    except DataError as error:
        return sample, _raising(error)
    return sample, lines


def _raising(error: DataError) -> Iterator[Line]:
    raise error
    yield  # makes this an iterator
