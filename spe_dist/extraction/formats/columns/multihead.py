"""The multi-head columns of CoNLL04, ADE and DREC (Bekoulis): BIO tags, and the relations of each word.

    #doc 5121
    0  Ada       B-Peop  ['N']     [0]
    1  Lovelace  I-Peop  ['Owns']  [3]
    2  owns      O       ['N']     [2]
    3  Acme      B-Org   ['N']     [3]

The columns are number, word, tag, relations and, for each relation, the number of the other word. A relation stands
with the last word of its head and names the last word of its tail; 'N' is none. A line `#doc` begins a document, a word
with the number of the first one a sentence.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from spe_dist.extraction.corpora.corpus import Document, Entity, Relation, Sentence
from spe_dist.extraction.formats.columns.layout import Block, blocks_of, documents_of
from spe_dist.extraction.formats.columns.tags import EXAMPLE, NO_TYPES, Tag, entities_of, parse_tag, says_ends
from spe_dist.extraction.formats.node import Node, shown
from spe_dist.extraction.formats.notices import note_words

NONE = "N"
NO_ENTITY = "relation arguments that are not entities (kept without a type)"
NOT_LAST = "relation arguments named by another word than the entity's last"

_LABEL = re.compile(r"""\s*(?:'([^']*)'|"([^"]*)")\s*(?:,|$)""")


class _Word(NamedTuple):
    line: Node
    number: int
    text: str
    tag: Tag
    relations: tuple[tuple[str, int], ...]  # type, number of the other word


def is_multihead(line: str) -> bool:
    """Whether a line has these columns."""
    return _columns(line) is not None


def _columns(line: str) -> list[str] | None:
    """Number, word, tag, relations and other words; None of a line that has other columns.

    Words hold spaces only where columns stand between tabs.
    """
    columns = [column.strip() for column in line.rstrip().split("\t")]
    if len(columns) != 5:
        columns = line.split(None, 3)
        relations, _, heads = columns.pop().rpartition("[") if columns else ("", "", "")
        columns += [relations.strip(), f"[{heads.strip()}"]
    is_known = len(columns) == 5 and columns[0].isdecimal() and len(columns[0]) < 10
    return columns if is_known and all(text[:1] + text[-1:] == "[]" for text in columns[3:]) else None


def read(lines: Iterable[Node], notices: Counter[str], predictions: bool = False) -> Iterator[Document]:
    """Documents of the lines of a file; predictions have the same columns as gold.

    Raises:
        DataError: a line has other columns, a tag is none, or a relation names no word of its sentence.
    """
    blocks = list(blocks_of(lines, lambda line: not is_multihead(line), _begins_sentence, notices))
    words = [[_word(line, notices) for line in block.lines] for block in blocks]
    has_ends = says_ends(word.tag for sentence in words for word in sentence)
    sentences = (_sentence(block, found, has_ends, notices) for block, found in zip(blocks, words, strict=True))
    yield from documents_of(blocks, sentences)


def _begins_sentence(line: str) -> bool:
    columns = _columns(line)
    return columns is not None and int(columns[0]) == 0


def _word(line: Node, notices: Counter[str]) -> _Word:
    columns = _columns(line.value)
    if columns is None:
        line.fail("five columns are expected", "write number, word, tag, ['relation', ...] and [other word, ...]")
    number, text, tag_text, relations, heads = columns
    tag = parse_tag(tag_text)
    if tag is None:
        line.fail(f"{shown(tag_text)} is not a tag", f"give {EXAMPLE}")
    notices[NO_TYPES] += tag_text != "O" and len(tag_text) == 1
    labels = _labels(line, relations)
    numbers = [part.strip() for part in heads[1:-1].split(",") if part.strip()]
    if len(numbers) != len(labels) or not all(part.isdecimal() and len(part) < 10 for part in numbers):
        line.fail(
            f"{len(labels)} relations have the words {shown(heads)}", "give the number of one word for each relation"
        )
    return _Word(line, int(number), text, tag, tuple(zip(labels, map(int, numbers), strict=True)))


def _labels(line: Node, text: str) -> list[str]:
    """The strings of a list in brackets."""
    rest, labels = text[1:-1].strip(), []
    while rest:
        found = _LABEL.match(rest)
        label = (found[1] or found[2] or "").strip() if found else ""
        if found is None or not label:
            line.fail(
                f"{shown(text)} is not a list of names", "write relations as ['Works_For', 'Lives_In'], none as ['N']"
            )
        labels.append(label)
        rest = rest[found.end() :]
    return labels


def _sentence(block: Block, words: Sequence[_Word], has_ends: bool, notices: Counter[str]) -> Sentence:
    texts = tuple(word.text for word in words)
    note_words(texts, notices)
    entities = entities_of([word.tag for word in words], has_ends, notices)
    at_word = {index: entity for entity in entities for index in range(entity.start, entity.end)}
    at_number = {word.number: index for index, word in enumerate(words)}

    def argument(index: int) -> Entity:
        entity = at_word.get(index)
        notices[NO_ENTITY] += entity is None
        notices[NOT_LAST] += entity is not None and index != entity.end - 1
        return entity or Entity(index, index + 1, "")

    relations = []
    for index, word in enumerate(words):
        for label, other in word.relations:
            if label == NONE:
                continue
            if other not in at_number:
                word.line.fail(
                    f"no word of its sentence has the number {other}", "number the words of each sentence from 0"
                )
            relations.append(Relation(label, argument(index), argument(at_number[other])))
    return Sentence(texts, tuple(entities), tuple(relations), origin=block.lines[0].place)
