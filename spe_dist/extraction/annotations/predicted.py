"""What `spe predict` writes, as annotated texts: one JSON object for each sentence (see `predicting/results.py`).

Sentences of one file, or of one JSON record, are one text. A text is put together from its sentences; what stood
between them was white space and is white space again, as long as it was and with as many line breaks as the numbers of
the lines say. So offsets stay those of the file that was predicted on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from spe_dist.extraction.annotations.document import (
    AnnotatedDocument,
    AnnotatedRelation,
    AnnotatedSpan,
    Characters,
)
from spe_dist.extraction.annotations.plain import place_of
from spe_dist.extraction.annotations.settings import AnnotationSettings
from spe_dist.extraction.formats.node import Node
from spe_dist.extraction.formats.notices import read_probability

MOST_BETWEEN = 1 << 20  # characters between two sentences


def recognises(fields: dict[str, Any]) -> bool:
    """Whether a record with these fields is a sentence that `spe predict` has written."""
    return {"words", "word_offsets", "start", "end"} <= fields.keys()


def read(records: Iterable[Node], notices: Counter[str], settings: AnnotationSettings) -> Iterator[AnnotatedDocument]:
    """The texts of records of sentences. Raises DataError for a record that is damaged."""
    text: _Text | None = None
    for record in records:
        if text is None or not text.goes_on(record):
            if text is not None:
                yield text.document()
            text = _Text(record)
        text.add(record)
    if text is not None:
        yield text.document()


class _Text:
    """A text, put together sentence by sentence."""

    def __init__(self, first: Node) -> None:
        self.first = first
        self.parts: list[str] = []
        self.end, self.line = 0, 1  # where the last sentence ends
        self.spans: list[AnnotatedSpan] = []
        self.relations: list[AnnotatedRelation] = []
        self.tokens: list[Characters] = []
        self.sentences: list[Characters] = []

    def goes_on(self, record: Node) -> bool:
        """Whether a sentence is the next one of this text: of the same file or record, and behind the last one."""
        names = ["file", "id"] if record.has("id") or self.first.has("id") else ["file"]
        same = all(_value(self.first, name) == _value(record, name) for name in names)
        return same and record.child("start").integer() >= self.end

    def add(self, record: Node) -> None:
        text, start, end = (record.child(name) for name in ("text", "start", "end"))
        if end.integer() - start.integer() != len(text.string()):
            text.fail(
                f"it has {len(text.string()):,} characters and goes from {start.value} to {end.value}",
                "correct predictions in a tool of annotation (spe corpus convert --to brat), not in this file",
            )
        is_of_text = record.has("line") and not record.has("id")  # in JSON all lines are that of the record
        line = record.child("line").integer() if is_of_text else self.line
        self._fill(start, line)
        before = len(self.spans)
        for node in record.child("entities").items():
            place = node.child("start").integer(), node.child("end").integer()
            self.spans.append(AnnotatedSpan((place,), node.child("type").label(), None, read_probability(node)))
        for node in record.child("relations").items():
            head, tail = (self._argument(node.child(role), before) for role in ("head", "tail"))
            self.relations.append(AnnotatedRelation(head, tail, node.child("type").label(), read_probability(node)))
        words = [place_of(node) for node in record.child("word_offsets").items()]
        self.tokens += words
        if words:
            self.sentences.append((start.integer(), end.integer()))
        self.parts.append(text.string())
        self.end, self.line = end.integer(), line + text.string().count("\n")

    def _fill(self, start: Node, line: int) -> None:
        """White space up to the next sentence."""
        characters = start.integer() - self.end
        if not 0 <= characters <= MOST_BETWEEN:
            start.fail(f"the sentence before it ends at {self.end:,}", "get the file again, it is damaged")
        breaks = min(characters, max(0, line - self.line))
        self.parts.append(" " * (characters - breaks) + "\n" * breaks)

    def _argument(self, node: Node, before: int) -> int:
        n_entities = len(self.spans) - before
        if not 0 <= node.integer() < n_entities:
            node.fail(f"the sentence has {n_entities} entities", "give the argument's position in `entities`, from 0")
        return before + node.integer()

    def document(self) -> AnnotatedDocument:
        return AnnotatedDocument(
            str(_value(self.first, "id") if self.first.has("id") else _value(self.first, "file") or ""),
            "".join(self.parts),
            tuple(self.spans),
            tuple(self.relations),
            tokens=tuple(self.tokens),
            sentences=tuple(self.sentences),
            origin=self.first.place,
        )


def _value(record: Node, name: str) -> str | int | None:
    return record.child(name).identity() if record.has(name) else None
