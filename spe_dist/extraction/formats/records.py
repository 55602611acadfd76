"""From a file to its JSON records, each with its place, whatever the layout: JSON lines, one list, or objects that go
over several lines; or to its lines, for formats that are not JSON.

Plain, gzip, xz, zstandard and bzip2 files are told apart by their first bytes. Every fault becomes a DataError that
names the file, the line or item, the field, the value, the reason and the remedy.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from spe_dist.data.text.files import read_chunks
from spe_dist.errors import DataError
from spe_dist.extraction.formats.node import SHOWN_CHARACTERS, Node

MAX_UNPACKED_BYTES = 256 << 20
MAX_PIPE_BYTES = 4 << 30  # of what has no size: a pipe may have no end
MAX_UNPACKED_RATIO = 200  # of what a compressed file holds to its size
BLANK_LINES = "blank lines"
DAMAGE_REMEDY = "the file may be cut off or edited by hand: get it again, or repair this place"

_SPACE = re.compile(r"\s*")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def records_of(text: str, source: str, notices: Counter[str]) -> Iterator[Node]:
    """The JSON records of a file's text in order. Blank lines are skipped and counted in `notices`.

    Raises:
        DataError: it holds damaged JSON.
    """
    first = _behind_space(text, 0)
    if text[first] == "[":
        yield from _of_list(text, first, source)
    elif _is_over_several_lines(text):
        yield from _of_objects(text, first, source)
    else:
        yield from _of_lines(text, source, notices)


def lines_of(text: str, source: str) -> Iterator[Node]:
    """All lines of a file's text, blank ones too, as strings without their line breaks."""
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        yield Node(line, f"{source}, line {number}")


def _of_lines(text: str, source: str, notices: Counter[str]) -> Iterator[Node]:
    start, number, blank = 0, 0, 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        number += 1
        line = text[start:end].strip()
        start = end + 1
        if not line:
            blank += 1
            continue
        if blank:
            notices[BLANK_LINES] += blank
            blank = 0
        yield Node(_of_line(line, f"{source}, line {number}"), f"{source}, line {number}")


def _of_line(text: str, place: str) -> Any:
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{place}, column {error.colno}: damaged JSON ({error.msg}); {DAMAGE_REMEDY}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: damaged JSON ({error}); {DAMAGE_REMEDY}") from None
    if _SURROGATE.search(text):
        _check_encodable(value, place)
    return value


def _of_objects(text: str, first: int, source: str) -> Iterator[Node]:
    """One object behind another, each over several lines."""
    position, number, line = first, 0, _line(text, first)
    while position < len(text):
        number += 1
        node, end = _item(text, position, source, number, line)
        yield node
        end = _behind_space(text, end)
        line += text.count("\n", position, end)
        position = end


def _of_list(text: str, first: int, source: str) -> Iterator[Node]:
    """Items are decoded one by one, so that a fault is known by its item."""
    position = _behind_space(text, first + 1)
    number, line = 0, _line(text, position)
    if text[position : position + 1] == "]":
        raise DataError(f"{source} holds an empty list; give a file that holds at least one sentence")
    while True:
        number += 1
        node, end = _item(text, position, source, number, line)
        yield node
        end = _behind_space(text, end)
        if text[end : end + 1] == "]":
            break
        place = f"{source}, after item {number}"
        if text[end : end + 1] != ",":
            reason = "the list does not end" if end == len(text) else "no comma or closing bracket follows"
            _refuse(text, end, place, reason)
        end = _behind_space(text, end + 1)
        if text[end : end + 1] == "]":
            _refuse(text, end, place, "a comma stands before the closing bracket")
        line += text.count("\n", position, end)
        position = end
    rest = _behind_space(text, end + 1)
    if rest < len(text):
        _refuse(text, rest, source, "more follows after the end of the list")


def _item(text: str, position: int, source: str, number: int, line: int) -> tuple[Node, int]:
    """The value that begins at a position, and its end."""
    try:
        value, end = _DECODER.raw_decode(text, position)
    except json.JSONDecodeError as error:
        _refuse(text, error.pos, f"{source}, item {number}", error.msg)
    except (ValueError, RecursionError) as error:
        _refuse(text, position, f"{source}, item {number}", str(error))
    place = f"{source}, line {line}, item {number}"
    if _SURROGATE.search(text, position, end):
        _check_encodable(value, place)
    return Node(value, place), end


def _behind_space(text: str, position: int) -> int:
    return _SPACE.match(text, position).end()  # type: ignore[union-attr]


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _is_over_several_lines(text: str) -> bool:
    """Whether objects go over several lines: no line of the file is an object by itself."""
    lines = [line for line in text[: 1 << 16].split("\n") if line.strip()]
    if len(lines) < 2:
        return False
    for line in lines:
        stripped = line.strip()
        if stripped.startswith("{") and stripped.endswith("}"):
            try:
                if isinstance(json.loads(stripped), dict) and not line[:1].isspace():
                    return False
            except (ValueError, RecursionError):
                continue
    return not lines[1].lstrip().startswith("{")


def _refuse(text: str, position: int, place: str, reason: str) -> NoReturn:
    raise DataError(f"{place} (line {_line(text, position)}): damaged JSON ({reason}); {DAMAGE_REMEDY}")


def _finite(text: str) -> float:
    """A number that could be written again: Python reads 1e999 as infinite."""
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:SHOWN_CHARACTERS]} is beyond the range of numbers")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of some fields, for a JSON decoder.

    Raises:
        ValueError: a field occurs twice, so that one of its values would be lost.
    """
    fields = dict(pairs)
    if len(fields) < len(pairs):
        name = next(name for name, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"field {name!r} occurs twice in one object")
    return fields


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_refuse_constant, object_pairs_hook=unique_fields)


def _check_encodable(value: Any, place: str) -> None:
    """Half of a surrogate pair is no character; nothing that holds one could be written again."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        half = error.object[error.start : error.end].encode("unicode_escape").decode()
        raise DataError(f"{place} holds {half}, half of a character; remove it, or write the whole character") from None
    except RecursionError:
        raise DataError(f"{place} has too many brackets in brackets; remove the field that holds them") from None


def read_text(path: str | Path) -> str:
    """What a file holds, unpacked, with "\\n" for every line break.

    Raises:
        DataError: the file cannot be read, is not UTF-8 or is empty.
    """
    text = read_exactly(path)
    if not text.strip():
        raise DataError(f"{path} is empty; give a file that holds at least one sentence")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def read_exactly(path: str | Path) -> str:
    """What a file holds, unpacked, without a byte order mark and with its own line breaks; empty where it is empty.

    Raises:
        DataError: the file cannot be read or is not UTF-8.
    """
    data = _read_bytes(Path(path))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line} is not UTF-8 (byte 0x{data[error.start]:02x}); save the file as UTF-8"
        ) from None


def _read_bytes(path: Path) -> bytes:
    if os.path.isdir(path):
        raise DataError(f"{path} is a folder without .ann files; name a file in it")
    try:
        size = os.stat(path).st_size  # 0 for a pipe
    except (FileNotFoundError, ValueError):  # a zero byte in the name
        raise DataError(f"{path} does not exist; check the name") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; check its folder's permissions") from None
    limit = max(MAX_UNPACKED_BYTES, MAX_UNPACKED_RATIO * size) if size else MAX_PIPE_BYTES
    parts: list[bytes] = []
    read = 0
    for data, _ in read_chunks(path):
        if not parts and b"\0" in data[: 1 << 16]:
            raise DataError(f"{path} holds zero bytes: it is binary, or UTF-16; give text in UTF-8")
        parts.append(data)
        read += len(data)
        if read > limit:
            raise DataError(
                f"{path} unpacks to more than {limit >> 20:,} MiB, as no corpus of its size does; get it again"
            )
    return b"".join(parts)
