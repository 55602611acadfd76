"""What a terminal may be given: names, labels and messages of others can hold sequences that move its cursor, set its
title or its clipboard, hide what was printed, or make a name look like another.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from spe_dist.errors import SHOWN_CONTROLS

_IN_TEXT = {code: shown for code, shown in SHOWN_CONTROLS.items() if chr(code) not in "\t\n\r"}


def printable(text: str) -> str:
    """The text with control characters written with backslashes; tabs and line ends stay."""
    return text.translate(_IN_TEXT)


class _Printable:
    """A text stream to which control characters are written with backslashes; what is written as bytes stays."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._stream.write(printable(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)


@contextmanager
def printable_output() -> Iterator[None]:
    """In this context, nothing that is printed controls a terminal."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, _Printable(s)) if s is not None else s for s in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
