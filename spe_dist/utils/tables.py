"""Tables of text whose columns are aligned, as every command prints them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

FIRST_LEFT = "<>"  # names to the left, numbers to the right
GAP = "  "


def aligned(rows: Iterable[Sequence[str]], columns: str = FIRST_LEFT, rule: bool = False) -> list[str]:
    """The lines of a table, without space at their ends.

    Args:
        rows: the cells of each row; a row may have fewer cells than others.
        columns: how each column is aligned, `<` to the left or `>` to the right; the last sign stands for all further
            columns.
        rule: whether a line of dashes follows the first row.
    """
    padded = padded_cells(rows, columns)
    if rule and padded:
        padded.insert(1, ["-" * display_width(cell) for cell in padded[0]])
    return [GAP.join(row).rstrip() for row in padded]


def markdown(rows: Iterable[Sequence[str]], columns: str = FIRST_LEFT) -> list[str]:
    """The lines of a Markdown table, the first row its head; `columns` as for `aligned`."""
    table = [list(row) for row in rows]
    sides = [columns[min(i, len(columns) - 1)] for i in range(len(table[0]))]
    shortest_rule = ["---" if side == "<" else "--:" for side in sides]
    padded = padded_cells([*table, shortest_rule], columns)
    rule = ["-" * display_width(cell) for cell in padded.pop()]
    padded.insert(1, [dashes if side == "<" else f"{dashes[:-1]}:" for dashes, side in zip(rule, sides, strict=True)])
    return [f"| {' | '.join(row)} |" for row in padded]


def padded_cells(rows: Iterable[Sequence[str]], columns: str = FIRST_LEFT) -> list[list[str]]:
    """The cells, each padded with spaces to the width of its column; `columns` as for `aligned`."""
    table = [list(row) for row in rows]
    n_columns = max(map(len, table), default=0)
    widths = [max(display_width(row[i]) for row in table if i < len(row)) for i in range(n_columns)]
    return [
        [_pad(cell, widths[i], columns[min(i, len(columns) - 1)]) for i, cell in enumerate(row + [""] * missing)]
        for row in table
        for missing in [n_columns - len(row)]
    ]


def display_width(text: str) -> int:
    """How many places of a terminal a text takes: two for an East Asian wide letter, none for a combining mark."""
    if text.isascii():
        return len(text)
    return sum(_letter_width(letter) for letter in text)


def _letter_width(letter: str) -> int:
    if unicodedata.category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def _pad(cell: str, width: int, side: str) -> str:
    space = " " * (width - display_width(cell))
    return space + cell if side == ">" else cell + space
