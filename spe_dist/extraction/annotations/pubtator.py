"""PubTator: abstracts with mentions of concepts, and relations between concepts (BC5CDR, BioRED, NCBI).

    900001|t|Aspirin and bleeding
    900001|a|Aspirin may cause bleeding.
    900001<TAB>0<TAB>7<TAB>Aspirin<TAB>Chemical<TAB>D001241
    900001<TAB>12<TAB>20<TAB>bleeding<TAB>Disease<TAB>D006470
    900001<TAB>CID<TAB>D001241<TAB>D006470

Offsets are half-open and count code points of the title, one space and the abstract. A mention may name several
concepts (`D001|D002`), or none (`-1`). A relation holds between concepts, not mentions: it becomes relations of the
pairs of their mentions that stand in one sentence, all of them or the nearest. Where no pair does, it becomes one
relation between the nearest mentions, which lies across sentences and is counted as such.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from spe_dist.extraction.annotations.concepts.mentions import Mentions
from spe_dist.extraction.annotations.document import AnnotatedDocument, AnnotatedRelation, AnnotatedSpan, Characters
from spe_dist.extraction.annotations.offsets import check_words
from spe_dist.extraction.annotations.sentences import sentence_borders
from spe_dist.extraction.annotations.settings import AnnotationSettings
from spe_dist.extraction.formats.node import Node, shown

FIRST_LINE = re.compile(r"[^\s|]+\|[ta]\|")
NO_CONCEPT = ("", "-1", "-")
FURTHER_COLUMNS = "relations with further columns, not kept"

_TEXT = re.compile(r"(?P<key>[^\s|]+)\|(?P<kind>[a-zA-Z])\|(?P<text>.*)", re.DOTALL)
_KEY = re.compile(r"[|\t]")
_OFFSET = re.compile(r"[0-9]{1,9}")
_ONE_CONCEPT = re.compile(r"[\w:.*-]*\d")  # what each part of a composite id looks like; those of variants do not
_SEPARATOR = re.compile(r"[|,;+]")


def read(lines: Iterable[Node], notices: Counter[str], settings: AnnotationSettings) -> Iterator[AnnotatedDocument]:
    """The abstracts of a file, in order. A title begins one, and so does a text with another id.

    Raises:
        DataError: a line is none of the format, or stands with another abstract than its own.
    """
    held: list[Node] = []
    for line in lines:
        match = _TEXT.match(line.string())
        if held and match and (match["kind"] == "t" or match["key"] != _key(held[0])):
            yield _Abstract(held, notices, settings).read()
            held = []
        if line.value.strip():
            held.append(line)
    if held:
        yield _Abstract(held, notices, settings).read()


class _Abstract:
    """One abstract: its lines of text, then mentions and relations."""

    def __init__(self, lines: Sequence[Node], notices: Counter[str], settings: AnnotationSettings):
        self.notices, self.settings = notices, settings
        self.lines = lines
        self.key, self.origin = _key(lines[0]), lines[0].place
        self.text, self.has_title = "", False  # a title may be empty
        self.sentences: list[Characters] = []
        self.spans: list[AnnotatedSpan] = []
        self.words: list[str | None] = []  # what the file says that each span covers
        self.by_concept: defaultdict[str, list[int]] = defaultdict(list)  # positions of spans

    def read(self) -> AnnotatedDocument:
        relations = []
        for line in self.lines:
            if _key(line) != self.key:
                line.fail(
                    f"it stands with the abstract {shown(self.key)}", "put it behind the title and abstract of its id"
                )
            match = _TEXT.match(line.value)
            columns = [column.strip() for column in line.value.rstrip().split("\t")]
            if match:
                self._add_text(match["text"])
            elif len(columns) >= 5 and all(map(_OFFSET.fullmatch, columns[1:3])):
                self._add_mention(line, columns)
            elif len(columns) >= 4 and columns[1] and not _OFFSET.fullmatch(columns[1]):
                relations.append((line, columns))
            else:
                line.fail(
                    "a mention is PMID, start, end, text, type, concept, and a relation PMID, type, concept, concept",
                    "write them so, with tabs between them",
                )
        document = AnnotatedDocument(
            self.key, self.text, tuple(self.spans), sentences=tuple(self.sentences), origin=self.origin
        )
        document = check_words(document, self.words, self.notices)
        self.spans = list(document.spans)
        for position, span in enumerate(self.spans):
            for concept in _concepts(span.key or ""):
                self.by_concept[concept].append(position)
        mentions = self._mentions()
        found = (relation for line, columns in relations for relation in self._relations(line, columns, mentions))
        spans = tuple(replace(span, key=None) for span in self.spans)  # a concept is no name of one mention
        return replace(document, spans=spans, relations=tuple(dict.fromkeys(found)))

    def _add_text(self, text: str) -> None:
        """Title or abstract: no sentence goes over its end."""
        self.text += f" {text}" if self.has_title else text
        self.has_title = True
        start = len(self.text) - len(text)
        self.sentences += [
            (start + first, start + end) for first, end in sentence_borders(text, self.settings.language)
        ]

    def _add_mention(self, line: Node, columns: Sequence[str]) -> None:
        if not columns[4]:
            line.fail("a mention needs a type", "give it in the fifth column")
        concept = columns[5] if len(columns) > 5 else None
        self.spans.append(AnnotatedSpan(((int(columns[1]), int(columns[2])),), columns[4], concept))
        self.words.append(columns[3])

    def _relations(self, line: Node, columns: Sequence[str], mentions: Mentions) -> list[AnnotatedRelation]:
        """What stands for a relation of two concepts: relations of their mentions."""
        self.notices[FURTHER_COLUMNS] += len(columns) > 4
        heads, tails = (self.by_concept.get(concept, []) for concept in columns[2:4])
        return mentions.relations(heads, tails, columns[1], line.place)

    def _mentions(self) -> Mentions:
        behind = len(self.text)
        numbers = [bisect_right(self.sentences, (span.start, behind)) for span in self.spans]
        return Mentions(self.spans, numbers, self.settings.concept_pairs, self.notices)


def _key(line: Node) -> str:
    """The id at the beginning of a line."""
    return _KEY.split(line.value, maxsplit=1)[0].strip()


def _concepts(column: str) -> list[str]:
    """The concepts that a mention names: those of a composite id, and itself, since relations may name it whole."""
    parts = [part for part in _SEPARATOR.split(column) if part not in NO_CONCEPT]
    if len(parts) > 1 and all(map(_ONE_CONCEPT.fullmatch, parts)):
        return list(dict.fromkeys([column, *parts]))
    return [column] if column not in NO_CONCEPT else []
