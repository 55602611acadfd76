"""JSON that does not stand in lines: one list of records, or objects over several lines, as a stream of JSON lines.

No more than a value is held. Structure is all that is looked for here, so bytes are taken for characters (Latin-1): a
value that is no UTF-8 reaches the reader of its line, which counts it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

from spe_dist.errors import DataError

MAX_VALUE_BYTES = 32 << 20
DAMAGE_REMEDY = "repair it, get the file again, or have it read as text if this is not JSON"

_DECODER = json.JSONDecoder()
_MARK = "\xef\xbb\xbf"  # of the byte order
_SPACE = re.compile(r"[ \t\n\r]*")
_LINE_BREAKS = str.maketrans("\n\r", "  ")


def json_lines(
    chunks: Iterable[tuple[bytes, int]], name: str, remedy: str = DAMAGE_REMEDY
) -> Iterator[tuple[bytes, int]]:
    """(a JSON line for each value, position in the file) for chunks of bytes that hold a list or objects in a row.

    Raises:
        DataError: the JSON is damaged or cut short, or a value has more than MAX_VALUE_BYTES.
    """
    values = _Values(name, remedy)
    position = 0
    for chunk, position in chunks:
        lines = list(values.feed(chunk.decode("latin-1")))
        if lines:
            yield "".join(lines).encode("latin-1"), position
    lines = list(values.end())
    if lines:
        yield "".join(lines).encode("latin-1"), position


class _Values:
    """Cuts a text that comes in parts into its values."""

    def __init__(self, name: str, remedy: str) -> None:
        self._name, self._remedy = name, remedy
        self._text = ""
        self._wanted = 0  # characters from which on it is worth trying again
        self._lines, self._column = 1, 1  # of the first character held
        self._is_begun = self._in_list = self._is_closed = self._needs_comma = self._needs_value = False

    def feed(self, part: str) -> Iterator[str]:
        self._text += part
        if len(self._text) >= self._wanted:
            yield from self._cut(is_end=False)

    def end(self) -> Iterator[str]:
        yield from self._cut(is_end=True)
        if self._in_list and not self._is_closed:
            self._fail("the list has no end", len(self._text))

    def _cut(self, is_end: bool) -> Iterator[str]:
        """The values that the text held has as a whole; what stands behind them is kept."""
        if not self._is_begun:
            if len(self._text) < len(_MARK) and not is_end:
                return
            self._text = self._text.removeprefix(_MARK)
        text, start = self._text, 0
        while True:
            start = _SPACE.match(text, start).end()  # type: ignore[union-attr]
            if start == len(text):
                break
            if not self._is_begun or self._is_closed or text[start] in ",]":
                after = self._mark(text[start], start)
                if after != start:
                    start = after
                    continue
            if self._in_list and self._needs_comma:
                self._fail("Expecting ',' delimiter", start)
            end = self._value_end(text, start, is_end)
            if end is None:
                break
            yield text[start:end].translate(_LINE_BREAKS) + "\n"
            start, self._needs_comma, self._needs_value = end, True, False
        self._drop(start)

    def _mark(self, mark: str, start: int) -> int:
        """Where it goes on behind a mark between values; `start` where there is none."""
        if not self._is_begun:
            self._is_begun, self._in_list = True, mark == "["
            return start + (mark == "[")
        if self._is_closed:
            self._fail("Extra data", start)
        is_end = mark == "]" and not self._needs_value
        if not self._in_list or not (is_end or (mark == "," and self._needs_comma)):
            self._fail("Expecting value", start)
        self._is_closed, self._needs_value, self._needs_comma = is_end, not is_end, False
        return start + 1

    def _value_end(self, text: str, start: int, is_end: bool) -> int | None:
        """Where the value ends; None where the rest of it is still to come."""
        try:
            _, end = _DECODER.raw_decode(text, start)
        except json.JSONDecodeError as error:
            if is_end or len(text) - start > MAX_VALUE_BYTES:
                self._fail(error.msg, error.pos)
            self._wanted = 2 * (len(text) - start)
            return None
        except (ValueError, RecursionError) as error:
            self._fail(str(error), start)
        self._wanted = 0
        return None if end == len(text) and not is_end and text[start] not in '{["' else end  # half of a number

    def _drop(self, end: int) -> None:
        gone = self._text[:end]
        breaks = gone.count("\n")
        self._lines += breaks
        self._column = len(gone) - gone.rfind("\n") if breaks else self._column + len(gone)
        self._text = self._text[end:]

    def _fail(self, reason: str, position: int) -> None:
        before = self._text[:position]
        breaks = before.count("\n")
        column = position - before.rfind("\n") if breaks else self._column + position
        raise DataError(
            f"{self._name}, line {self._lines + breaks}, column {column}: damaged JSON ({reason}); {self._remedy}"
        )
