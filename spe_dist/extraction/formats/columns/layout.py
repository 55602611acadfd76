"""Where a file of columns has its words and tags, and which of its lines are a sentence.

Columns stand between tabs or spaces. Which of them hold words and tags is found by what they hold.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from spe_dist.extraction.corpora.corpus import Document, Sentence
from spe_dist.extraction.formats.columns.tags import parse_tag
from spe_dist.extraction.formats.node import Node

DOCUMENT_START = "-DOCSTART-"
PHRASES = frozenset("NP VP PP ADJP ADVP SBAR PRT CONJP INTJ LST UCP".split())  # in the chunk column of CoNLL-2003
LEAST_SHARE = 0.5  # of the lines, that have a tag in a column of tags
COMMENTS = "comment lines (#), not kept"

_SPACES = re.compile(r"[ \t]+")
_DOCUMENT = re.compile(r"#+ ?(?:doc|newdoc|document|medline)\b(?:[\s:=]|id\b)*(.*)", re.IGNORECASE)


@dataclass(frozen=True)
class Columns:
    """Which columns hold what, counted from 0.

    Attributes:
        width: how many there are.
        word: the column of words.
        tags: those of tags, from left to right, without phrases (chunks) where there are others.
        others: how many more hold something beside the numbers of words.
    """

    width: int
    word: int
    tags: tuple[int, ...]
    others: int


@dataclass(frozen=True)
class Block:
    """The lines of a sentence. `begins`: the id of the document that begins with it; None where none does."""

    lines: list[Node]
    begins: str | None = None


def fields_of(line: str) -> tuple[str, ...]:
    """The columns of a line."""
    text = line.rstrip(" \t")
    return tuple(map(str.strip, text.split("\t"))) if "\t" in text else tuple(_SPACES.split(text.strip()))


def is_data(line: str) -> bool:
    """Whether a line has columns: it is not blank, no start of a document, and begins with no #."""
    return bool(line.strip()) and line[0] != "#" and not line.startswith(DOCUMENT_START)


def find_columns(rows: Iterable[Sequence[str]]) -> Columns | None:
    """The layout of a file by the columns of its lines; None where no column is one of tags.

    A column is one of tags where most lines have a tag there. Words come first, behind numbers that count them.
    """
    rows = list(rows)
    if not rows:
        return None
    [(width, _)] = Counter(map(len, rows)).most_common(1)
    values = [Counter(row[index] for row in rows if len(row) == width) for index in range(width)]
    types = [_types_in(column) for column in values]
    first = int(width > 2 and _counts_words([row[0] for row in rows if len(row) == width]))
    word = next((index for index in range(first, width) if types[index] is None), first)
    tags = [index for index in range(width) if types[index] is not None and index != word]
    entities = [index for index in tags if not types[index] or not types[index] <= PHRASES]  # type: ignore[operator]
    chosen = entities or tags
    others = sum(len(values[index]) > 1 for index in range(first, width) if index != word and index not in chosen)
    return Columns(width, word, tuple(chosen), others) if tags else None


def _types_in(values: Counter[str]) -> set[str] | None:
    """The types in a column; None where it is no column of tags."""
    tags = {value: parse_tag(value) for value in values}
    if sum(count for value, count in values.items() if tags[value]) < LEAST_SHARE * values.total():
        return None
    return {tag.type for tag in tags.values() if tag} - {""}


def _counts_words(values: Sequence[str]) -> bool:
    """Whether these are numbers that go up by one, from 0 or 1 again and again."""
    if not all(value.isascii() and value.isdigit() and len(value) < 9 for value in values):
        return False
    numbers = [int(value) for value in values]
    steps = pairwise(numbers)
    return numbers[0] <= 1 and all(after in (before + 1, numbers[0]) for before, after in steps)


def blocks_of(
    lines: Iterable[Node],
    is_comment: Callable[[str], bool],
    begins: Callable[[str], bool],
    notices: Counter[str],
) -> Iterator[Block]:
    """The sentences of a file, which blank lines, starts of documents and lines that `begins` holds for separate.

    is_comment: of a line that begins with #.
    """
    held: list[Node] = []
    document: str | None = None
    number = 0
    for line in lines:
        text = line.value
        start = _document_start(text, is_comment)
        if start is None and text.strip() and not (text[0] == "#" and is_comment(text)):
            if held and begins(text):
                yield Block(held, document)
                held, document = [], None
            held.append(line)
            continue
        notices[COMMENTS] += start is None and bool(text.strip())
        if held and (start is not None or not text.strip()):
            yield Block(held, document)
            held, document = [], None
        if start is not None:
            number += 1
            document = start or str(number)
    if held:
        yield Block(held, document)


def documents_of(blocks: Iterable[Block], sentences: Iterable[Sentence]) -> Iterator[Document]:
    """Sentences as documents; those before the first start of a document are documents of their own."""
    key, held = "", list[Sentence]()
    for block, sentence in zip(blocks, sentences, strict=True):
        if block.begins is None and not held:
            yield Document("", (sentence,))
            continue
        if block.begins is not None:
            if held:
                yield Document(key, tuple(held))
            key, held = block.begins, []
        held.append(sentence)
    if held:
        yield Document(key, tuple(held))


def _document_start(line: str, is_comment: Callable[[str], bool]) -> str | None:
    """The id, empty where none is given, of a document that begins in a line; None where none does."""
    if line.startswith(DOCUMENT_START):
        return line.partition("(")[2].rpartition(")")[0].strip()
    found = _DOCUMENT.fullmatch(line) if line.startswith("#") and is_comment(line) else None
    return found[1].strip() if found else None
