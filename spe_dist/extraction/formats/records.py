"""From a file to its JSON records, each with its place, whatever the layout: JSON lines, one list, or one object.

Plain, gzip, xz, zstandard and bzip2 files are told apart by their first bytes. Every fault becomes a DataError that
names the file, the line or item, the field, the value, the reason and the remedy.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from spe_dist.data.text_files import read_chunks
from spe_dist.errors import DataError

SHOWN_CHARACTERS = 80
BLANK_LINES = "blank lines"

_SPACE = re.compile(r"\s*")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class Node:
    """A value inside a record, that knows where it stands. How it is reached is put into words only for a message."""

    __slots__ = ("_key", "_parent", "place", "value")

    def __init__(self, value: Any, place: str, parent: Node | None = None, key: str | int = ""):
        self.value = value
        self.place = place  # file and line (or item of a list)
        self._parent = parent
        self._key = key

    @property
    def path(self) -> str:
        """Fields and positions that lead to the value from its record."""
        if self._parent is None:
            return ""
        before = self._parent.path
        if isinstance(self._key, int):
            return f"{before}[{self._key}]"
        return f"{before}.{self._key}" if before else self._key

    def fail(self, reason: str, remedy: str) -> NoReturn:
        field = f": {self.path}" if self.path else ""
        raise DataError(f"{self.place}{field} is {shown(self.value)}, but {reason}; {remedy}")

    def has(self, key: str) -> bool:
        return key in self.value

    def child(self, key: str) -> Node:
        """The value of a field that must be there."""
        if not isinstance(self.value, dict):
            self.fail("an object with named fields is expected here", f'write {{"{key}": ..., ...}}')
        if key not in self.value:
            inside = f": {self.path}" if self.path else ""
            raise DataError(
                f"{self.place}{inside} has no field {key!r} (it has {shown(sorted(self.value))}); "
                f"add it; where there is nothing, as an empty list"
            )
        return Node(self.value[key], self.place, self, key)

    def items(self) -> list[Node]:
        """The values of a list."""
        if not isinstance(self.value, list):
            self.fail(f"a list is expected, not {_kind(self.value)}", "write it in square brackets")
        return [Node(value, self.place, self, index) for index, value in enumerate(self.value)]

    def fields(self) -> dict[str, Any]:
        if not isinstance(self.value, dict):
            self.fail(f"an object with named fields is expected, not {_kind(self.value)}", "see the format's example")
        return self.value

    def string(self) -> str:
        if not isinstance(self.value, str):
            self.fail(f"a string is expected, not {_kind(self.value)}", "write it in double quotes")
        return sys.intern(self.value)

    def integer(self) -> int:
        if isinstance(self.value, bool) or not isinstance(self.value, int):
            self.fail(f"a whole number is expected, not {_kind(self.value)}", "write it without quotes and fraction")
        return self.value

    def label(self) -> str:
        """A type's name: a string that is not empty."""
        name = self.string()
        if not name.strip():
            self.fail("a type needs a name", "name the type, or remove the entry")
        return name

    def probability(self) -> float:
        if isinstance(self.value, bool) or not isinstance(self.value, int | float) or not 0 <= self.value <= 1:
            self.fail("a probability is a number from 0 to 1", "write it so, or remove it")
        return float(self.value)

    def words(self) -> tuple[str, ...]:
        """A list of words."""
        if not isinstance(self.value, list):
            self.fail(f"a list of words is expected, not {_kind(self.value)}", 'write ["one", "string", "a", "word"]')
        for node in self.items() if not all(isinstance(word, str) for word in self.value) else ():
            node.string()
        return tuple(map(sys.intern, self.value))


def shown(value: Any) -> str:
    """A value as messages show it: JSON, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 3]}..."


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def read_records(path: str | Path, notices: Counter[str]) -> Iterator[Node]:
    """The records of a file in order. Blank lines are passed over and counted in `notices`.

    Errors: DataError where the file cannot be read, is no UTF-8, is empty, or holds damaged JSON.
    """
    text = _read_text(Path(path))
    first = _SPACE.match(text).end()  # type: ignore[union-attr]
    if first == len(text):
        raise DataError(f"{path} is empty; give a file that holds at least one sentence")
    if text[first] == "[":
        yield from _of_list(text, first, str(path))
    elif text[first] != "{":
        line = text.count("\n", 0, first) + 1
        begin = shown(text[first : first + 40].split("\n")[0])
        raise DataError(
            f"{path}, line {line} begins with {begin}, which is no JSON; give JSON lines (one object a line) "
            f"or one JSON list of objects"
        )
    elif _is_one_object(text):
        yield Node(_parse(text, f"{path}"), f"{path}, item 1")
    else:
        yield from _of_lines(text, str(path), notices)


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
        yield Node(_parse(line, f"{source}, line {number}", one_line=True), f"{source}, line {number}")


def _of_list(text: str, first: int, source: str) -> Iterator[Node]:
    """Items are decoded one by one, so that a fault is known by its item."""
    decoder = _decoder()
    suspicious = bool(_SURROGATE.search(text))
    position, number = first + 1, 0
    while True:
        position = _SPACE.match(text, position).end()  # type: ignore[union-attr]
        closes = text[position : position + 1] == "]"
        if closes and number and text[:position].rstrip().endswith(","):
            _refuse(text, position, f"{source}, after item {number}", "a comma stands before the closing bracket")
        if closes and not number:
            raise DataError(f"{source} holds an empty list; give a file that holds at least one sentence")
        if closes:
            break
        number += 1
        place = f"{source}, item {number}"
        try:
            value, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            _refuse(text, error.pos, place, error.msg)
        except (ValueError, RecursionError) as error:
            _refuse(text, position, place, str(error))
        if suspicious:
            _check_encodable(value, place)
        yield Node(value, place)
        position = _SPACE.match(text, position).end()  # type: ignore[union-attr]
        if text[position : position + 1] == ",":
            position += 1
        elif text[position : position + 1] != "]":
            reason = "the list does not end" if position == len(text) else "no comma or closing bracket follows"
            _refuse(text, position, f"{source}, after item {number}", reason)
    rest = _SPACE.match(text, position + 1).end()  # type: ignore[union-attr]
    if rest < len(text):
        _refuse(text, rest, source, "more follows after the end of the list")


def _is_one_object(text: str) -> bool:
    """Whether the file is one object over several lines: no line of it is an object by itself."""
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


def _parse(text: str, place: str, one_line: bool = False) -> Any:
    try:
        value = _decoder().decode(text)
    except json.JSONDecodeError as error:
        where = f"{place}, column {error.colno}" if one_line else f"{place}, line {error.lineno}"
        raise DataError(f"{where}: damaged JSON ({error.msg}); {_damage_remedy()}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: damaged JSON ({error}); {_damage_remedy()}") from None
    if _SURROGATE.search(text):
        _check_encodable(value, place)
    return value


def _refuse(text: str, position: int, place: str, reason: str) -> NoReturn:
    line = text.count("\n", 0, position) + 1
    raise DataError(f"{place} (line {line}): damaged JSON ({reason}); {_damage_remedy()}")


def _damage_remedy() -> str:
    return "the file may be cut off or edited by hand: get it again, or repair this place"


def _decoder() -> json.JSONDecoder:
    return json.JSONDecoder(parse_float=_finite, parse_constant=_refuse_constant, object_pairs_hook=_unique_fields)


def _finite(text: str) -> float:
    """A number that could be written again: Python reads 1e999 as infinite."""
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:SHOWN_CHARACTERS]} is beyond the range of numbers")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        name = next(name for name, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"field {name!r} occurs twice in one object")
    return fields


def _check_encodable(value: Any, place: str) -> None:
    """Half of a surrogate pair is no character; nothing that holds one could be written again."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        half = error.object[error.start : error.end].encode("unicode_escape").decode()
        raise DataError(f"{place} holds {half}, half of a character; remove it, or write the whole character") from None


def _read_text(path: Path) -> str:
    data = _read_bytes(path)
    if data[:2] in _UTF16_MARKS:
        raise DataError(f"{path} is UTF-16 text; save it as UTF-8")
    if b"\0" in data[: 1 << 16]:
        raise DataError(f"{path} is binary (it holds zero bytes), not JSON text; give a JSON file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line} is no UTF-8 (byte 0x{data[error.start]:02x}); save the file as UTF-8"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _read_bytes(path: Path) -> bytes:
    if os.path.isdir(path):
        raise DataError(f"{path} is a folder; name a file in it")
    if not os.path.exists(path):
        raise DataError(f"{path} does not exist; check the name")
    return b"".join(data for data, _ in read_chunks(path))
