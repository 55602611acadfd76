"""Corpora of one word a line, with its tag and more in columns behind it."""

from __future__ import annotations

from spe_dist.extraction.formats.columns.layout import LEAST_SHARE, fields_of, find_columns, is_data
from spe_dist.extraction.formats.columns.multihead import is_multihead
from spe_dist.extraction.formats.columns.tags import parse_tag

SAMPLE_CHARACTERS = 1 << 16
LEAST_LINES = 2  # one alone may be a sentence with a word such as "B-complex"


def format_of_columns(text: str) -> str | None:
    """`conll` or `multihead`, by the first lines of a file; None where it is neither."""
    lines = [line for line in text[:SAMPLE_CHARACTERS].split("\n") if is_data(line)]
    if len(text) > SAMPLE_CHARACTERS and len(lines) > 1:
        lines.pop()  # it may be cut
    if not lines or (lines[0].lstrip()[:1] in ("{", "[") and parse_tag(fields_of(lines[0])[-1]) is None):
        return None  # JSON
    if sum(map(is_multihead, lines)) >= LEAST_SHARE * len(lines):
        return "multihead"
    rows = [fields_of(line) for line in lines]
    columns = find_columns(rows)
    if columns is None or len(rows) < LEAST_LINES:
        return None
    return "conll" if sum(len(row) == columns.width for row in rows) >= LEAST_SHARE * len(rows) else None
