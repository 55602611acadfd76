"""What a terminal may be given: names, labels and messages of others can hold sequences that move its cursor, set its
title or its clipboard, hide what was printed, or make a name look like another.

And what becomes of work whose output nobody takes any more: `... | tee log` ends at the same Ctrl-C as what it reads.
"""

from __future__ import annotations

import os
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
    """A text stream to which control characters are written with backslashes; what is written as bytes stays.

    `lasting`: nothing fails where the stream can no longer be written (its reader has gone, its terminal is closed, its
    disk is full); what is written from then on is lost.
    """

    def __init__(self, stream: TextIO, lasting: bool = False) -> None:
        self._stream = stream
        self._lasting = lasting

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(printable(text))
        except OSError:
            if not self._lasting:
                raise
            drop(self._stream)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            if not self._lasting:
                raise
            drop(self._stream)


def drop(stream: TextIO) -> None:
    """Send what a stream still holds, and all that follows, nowhere: else it would fail again when Python ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@contextmanager
def printable_output(lasting: bool = False) -> Iterator[None]:
    """In this context, nothing that is printed controls a terminal. `lasting`: see `_Printable`."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, _Printable(s, lasting)) if s is not None else s for s in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
