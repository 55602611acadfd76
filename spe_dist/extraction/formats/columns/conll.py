"""CoNLL columns: one word a line with its tag, as in CoNLL-2002 and -2003, WNUT, BioBERT's corpora and many others.

    -DOCSTART- O

    Ada       B-Person
    Lovelace  I-Person
    owns      O
    Acme      B-Org

Blank lines end sentences and lines `-DOCSTART-` begin documents; without these, a sentence is a document of its own.
Lines that begin with # and have no tag are comments. There may be any number of columns: entities are read from the
first one with tags, of predictions (`spe score`) from the last. Such a corpus has entities and no relations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from spe_dist.errors import DataError
from spe_dist.extraction.corpora.corpus import Document, Sentence
from spe_dist.extraction.formats.columns.layout import (
    Block,
    Columns,
    blocks_of,
    documents_of,
    fields_of,
    find_columns,
    is_data,
)
from spe_dist.extraction.formats.columns.tags import EXAMPLE, NO_TYPES, Tag, entities_of, parse_tag, says_ends
from spe_dist.extraction.formats.node import Node, shown
from spe_dist.extraction.formats.notices import note_words

OTHER_COLUMNS = "columns beside words and tags, not kept"
OTHER_TAGS = "further columns of tags, not read (the first is; of predictions, the last)"


def read(lines: Iterable[Node], notices: Counter[str], predictions: bool = False) -> Iterator[Document]:
    """Documents of the lines of a file; predictions: of the last column of tags.

    Raises:
        DataError: there is no column of tags, or a line has none or another number of columns.
    """
    lines = list(lines)
    columns = _layout(lines)
    tag = columns.tags[-1 if predictions else 0]
    notices[OTHER_TAGS] += len(columns.tags) - 1
    notices[OTHER_COLUMNS] += columns.others

    def is_comment(line: str) -> bool:
        fields = fields_of(line)
        return len(fields) != columns.width or parse_tag(fields[tag]) is None

    blocks = list(blocks_of(lines, is_comment, lambda _: False, notices))
    tagged = [[_word_and_tag(line, columns, tag, notices) for line in block.lines] for block in blocks]
    has_ends = says_ends(tag for sentence in tagged for _, tag in sentence)
    sentences = (_sentence(block, words, has_ends, notices) for block, words in zip(blocks, tagged, strict=True))
    yield from documents_of(blocks, sentences)


def _layout(lines: list[Node]) -> Columns:
    rows = [fields_of(line.value) for line in lines if is_data(line.value)]
    rows = rows or [fields_of(line.value) for line in lines if line.value.startswith("#")]
    columns = find_columns(rows)
    if columns is None:
        raise DataError(
            f"{lines[0].place if lines else 'the file'} begins a file without a column of tags; give each word a line "
            f"with its tag ({EXAMPLE})"
        )
    return columns


def _word_and_tag(line: Node, columns: Columns, number: int, notices: Counter[str]) -> tuple[str, Tag]:
    fields = fields_of(line.value)
    if len(fields) != columns.width:
        line.fail(
            f"it has {len(fields)} columns where most lines have {columns.width}",
            "give each word all columns, with tabs between them where words hold spaces",
        )
    tag = parse_tag(fields[number])
    if tag is None:
        line.fail(f"column {number + 1} holds {shown(fields[number])}, which is not a tag", f"give {EXAMPLE}")
    notices[NO_TYPES] += fields[number] != "O" and len(fields[number]) == 1
    return fields[columns.word], tag


def _sentence(block: Block, tagged: list[tuple[str, Tag]], has_ends: bool, notices: Counter[str]) -> Sentence:
    words = tuple(word for word, _ in tagged)
    note_words(words, notices)
    entities = entities_of([tag for _, tag in tagged], has_ends, notices)
    return Sentence(words, tuple(entities), origin=block.lines[0].place)
