"""Decoded lines of a file or of standard input, plain or compressed, as a stream; what was left out is counted."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from spe_dist.data.text.files import MAX_LINE_BYTES, read_chunks
from spe_dist.errors import DataError

STANDARD_INPUT = "-"
SAMPLE_CHARACTERS = 256 << 10

BLANK = "blank lines"
UNDECODABLE = "lines that are not UTF-8"
BAD_JSON = "lines that are not JSON"
NO_TEXT_FIELD = "JSON lines without the text field"
BAD_LINES = (UNDECODABLE, BAD_JSON, NO_TEXT_FIELD)

_LINE_END = re.compile(rb"\n|\r(?!\n)")  # the carriage return of a Windows line end stays with the line, as space


class Line(NamedTuple):
    """A line without its end."""

    number: int  # from 1
    start: int  # its first character in the file
    text: str
    is_bad: bool = False  # it could not be decoded
    end: str = "\n"  # or "\r", or "" where the file ends with it


@dataclass
class Skips:
    """What was left out, by reason, and where the first bad line stands."""

    lines: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    first_bad: str | None = None

    @property
    def bad_lines(self) -> int:
        return sum(self.counts[reason] for reason in BAD_LINES)

    def add_bad(self, reason: str, path: Path, line: int, detail: str, unit: str = "line") -> None:
        self.counts[reason] += 1
        if self.first_bad is None:
            self.first_bad = f"{path}, {unit} {line}: {detail}"


def check_bad_lines(skips: Skips, max_bad_share: float, at_least: int = 5) -> None:
    """Check how much of the text cannot be used.

    Raises:
        DataError: more lines are bad than `max_bad_share` of all, and than `at_least`; or more than half of all.
    """
    if skips.bad_lines > max(at_least, max_bad_share * skips.lines) or skips.bad_lines > skips.lines / 2:
        counts = ", ".join(f"{skips.counts[reason]:,} {reason}" for reason in BAD_LINES if skips.counts[reason])
        raise DataError(
            f"{skips.bad_lines:,} of {skips.lines:,} lines cannot be used ({counts}; first: {skips.first_bad}), "
            f"more than max_bad_share={max_bad_share}; repair the input, name another text field, or raise "
            "max_bad_share"
        )


def shown_name(path: Path | str) -> str:
    """A file as messages name it."""
    return "standard input" if str(path) == STANDARD_INPUT else str(path)


def encodable(text: str) -> str:
    """Half of a surrogate pair, which a string can hold and UTF-8 cannot, becomes a question mark: lengths stay."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def decode_line(data: bytes) -> tuple[str, str]:
    """(the text of a line, what is wrong with it or an empty string)."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        return data.decode("utf-8", "replace"), f"is not UTF-8 (byte 0x{data[error.start]:02x})"
    return text, "is UTF-16 (every other byte is zero)" if "\0" in text and _is_utf16(data) else ""


def open_chunks(path: Path) -> Iterator[tuple[bytes, int]]:
    """(decompressed bytes, bytes read so far) of a file or of standard input ("-").

    Raises:
        DataError: standard input is closed; the file is damaged or cannot be read.
    """
    if str(path) != STANDARD_INPUT:
        return read_chunks(path)
    if sys.stdin is None:
        raise DataError("standard input is closed; name a file, or pipe text in")
    return read_chunks(Path(shown_name(path)), sys.stdin.buffer)


def read_lines(
    path: Path,
    skips: Skips,
    skip_bad: bool = False,
    chunks: Iterable[tuple[bytes, int]] | None = None,
    unit: str = "line",
) -> Iterator[Line]:
    """The decoded lines of a file or of standard input ("-"), plain or compressed.

    `chunks`: those of the file, where they were opened before. `unit`: what a line of them is in the file.

    Raises:
        DataError: a line is no UTF-8 text and `skip_bad` is not set; the file is damaged or cannot be read.
    """
    chunks = open_chunks(path) if chunks is None else chunks
    path = Path(shown_name(path))
    start = 0
    for number, (data, end) in enumerate(_byte_lines(path, chunks), start=1):
        skips.lines += 1
        text, fault = decode_line(data)
        if fault and not skip_bad:
            raise DataError(
                f"{path}, {unit} {number} {fault}; convert the file to UTF-8, or leave such lines out with --skip_bad"
            )
        if fault:
            skips.add_bad(UNDECODABLE, path, number, fault, unit)
        yield Line(number, start, text, bool(fault), end)
        start += len(text) + len(end)


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


def _is_utf16(data: bytes) -> bool:
    """Whether a line is, by all appearance, UTF-16 without a mark, which reads as UTF-8 with zero bytes."""
    return len(data) >= 8 and any(data[::2]) != any(data[1::2])


def _byte_lines(path: Path, chunks: Iterable[tuple[bytes, int]]) -> Iterator[tuple[bytes, str]]:
    """(line, its end); a line of any length is refused beyond a limit, so that memory is bounded."""
    held: list[bytes] = []
    held_bytes, is_first = 0, True
    for data, _ in chunks:
        chunk = data.removeprefix(b"\xef\xbb\xbf") if is_first else data
        is_first = False
        if held and held[-1].endswith(b"\r"):  # a newline may follow it
            chunk = held.pop() + chunk
            held_bytes = sum(map(len, held))
        start = 0
        for line, end in _cut(chunk):
            yield b"".join(held) + line if held else line, end
            held, held_bytes = [], 0
            start += len(line) + 1
        held.append(chunk[start:])
        held_bytes += len(held[-1])
        if held_bytes > MAX_LINE_BYTES:
            raise DataError(f"{path} has a line of more than {MAX_LINE_BYTES >> 20} MiB; is it text? Break its lines")
    if held_bytes:
        rest = b"".join(held)
        yield (rest[:-1], "\r") if rest.endswith(b"\r") else (rest, "")


def _cut(chunk: bytes) -> Iterator[tuple[bytes, str]]:
    """The lines of a chunk that have their ends in it, each with its end."""
    if b"\r" not in chunk:
        for line in chunk.split(b"\n")[:-1]:
            yield line, "\n"
        return
    start = 0
    for match in _LINE_END.finditer(chunk):
        end = match.group()
        if end == b"\r" and match.end() == len(chunk):
            return
        yield chunk[start : match.start()], end.decode()
        start = match.end()
