"""What extraction reads and writes, whatever the file format: documents of sentences with entities and relations.

Spans are half-open and count words of their sentence. A relation holds its two arguments, head first, as entities:
what a file says by index or by id is resolved when it is read. Gold that does not lie inside one sentence stays with
its document, so that it is counted, and stays in the denominator of recall.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

from spe_dist.extraction.annotations.document import AnnotatedDocument

Span = tuple[int, int]

UNPLACED = "unplaced"  # further field of a sentence: annotations whose words are not in it
_UNPLACED_TEXTS = {"entityMentions": ("text",), "relationMentions": ("em1Text", "em2Text")}


@dataclass(frozen=True, order=True)
class Entity:
    """A typed span of a sentence.

    Attributes:
        start, end: half-open, in words of the sentence.
        type: empty where a relation's argument is not an entity in the file.
        fragments: the parts of a discontinuous entity; empty where all words of the span belong to it.
        probability: of a prediction; None for gold. Entities are equal whatever it is.
    """

    start: int
    end: int
    type: str
    fragments: tuple[Span, ...] = ()
    probability: float | None = field(default=None, compare=False)

    @property
    def span(self) -> Span:
        return self.start, self.end


def single_spaced(text: str) -> str:
    """A text with single spaces where other white space or several stand; this is how texts of marks are compared."""
    return " ".join(text.split())


def joined(fragments: Iterable[Span]) -> list[Span]:
    """Parts in order, those that touch or overlap made one."""
    parts: list[Span] = []
    for start, end in sorted(fragments):
        if parts and start <= parts[-1][1]:
            parts[-1] = (parts[-1][0], max(end, parts[-1][1]))
        else:
            parts.append((start, end))
    return parts


@dataclass(frozen=True, order=True)
class Relation:
    """A directed, typed relation between two entities of a sentence.

    Attributes:
        head, tail: the arguments. They need not be among the sentence's entities.
        probability: of a prediction; None for gold. Relations are equal whatever it is.
    """

    type: str
    head: Entity
    tail: Entity
    probability: float | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Sentence:
    """Words with their annotations; duplicates stay as the file has them.

    Attributes:
        text: the sentence before it was split into words, where that is known.
        char_spans: where each word is in `text`, half-open, in characters.
        origin: file and line, for messages.
        extra: further fields of the file, which conversions keep.
    """

    words: tuple[str, ...]
    entities: tuple[Entity, ...] = ()
    relations: tuple[Relation, ...] = ()
    text: str | None = None
    char_spans: tuple[Span, ...] | None = None
    origin: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def unplaced(self) -> Mapping[str, Any]:
        """Mentions of the `nyt` format whose words are not in the sentence: `entityMentions`, `relationMentions`."""
        kept = self.extra.get(UNPLACED)
        return kept if _is_unplaced(kept) else {}


def _is_unplaced(kept: Any) -> TypeGuard[Mapping[str, Any]]:
    """Whether a field `unplaced` is one that reading sets, and not one that a user's corpus has for itself."""
    if not isinstance(kept, dict) or not kept.keys() <= _UNPLACED_TEXTS.keys():
        return False
    return all(
        isinstance(mentions, list) and all(_is_mention(mention, _UNPLACED_TEXTS[name]) for mention in mentions)
        for name, mentions in kept.items()
    )


def _is_mention(mention: Any, texts: tuple[str, ...]) -> bool:
    return isinstance(mention, dict) and all(isinstance(mention.get(name), str) for name in ("label", *texts))


@dataclass(frozen=True)
class CrossEntity:
    """An entity that begins in one sentence and ends in a later one; `start` and `end` count words of the document."""

    start: int
    end: int
    type: str


@dataclass(frozen=True)
class CrossRelation:
    """A relation between different sentences of a document, or with a CrossEntity; spans count its words."""

    type: str
    head: CrossEntity
    tail: CrossEntity


@dataclass(frozen=True)
class Document:
    """Sentences in reading order, and the gold that lies in no single one of them.

    Attributes:
        text: the whole text, where the file has it; that of a sentence is a part of it.
        starts: the first character of each sentence in `text`; empty where there is no text.
        annotated: what the document was read from, where that was annotated by character; None where the annotations
            of the sentences are others, as when predictions replace the gold.
    """

    id: str
    sentences: tuple[Sentence, ...]
    cross_entities: tuple[CrossEntity, ...] = ()
    cross_relations: tuple[CrossRelation, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict, compare=False)
    text: str | None = None
    starts: tuple[int, ...] = ()
    annotated: AnnotatedDocument | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Corpus:
    """All documents of a file. In formats without documents each sentence is a document of its own.

    Attributes:
        source: the file's name.
        format: of the file, a name of `formats.FORMATS`.
        notices: what was skipped or decided in reading, counted by reason.
    """

    documents: tuple[Document, ...]
    source: str = ""
    format: str = ""
    notices: Counter[str] = field(default_factory=Counter, compare=False)

    @property
    def sentences(self) -> list[Sentence]:
        """The sentences of all documents, in order."""
        return [sentence for document in self.documents for sentence in document.sentences]

    @property
    def n_sentences(self) -> int:
        return sum(len(document.sentences) for document in self.documents)

    def with_sentences(self, sentences: Iterable[Sentence]) -> Corpus:
        """The same documents with other sentences in place of theirs, in order, as when predictions replace the gold.

        What lies across sentences or has no place in a sentence belongs to the gold and is dropped.
        """
        rest: Iterator[Sentence] = iter(sentences)
        documents = tuple(
            replace(
                document,
                sentences=tuple(_without_unplaced(next(rest)) for _ in document.sentences),
                cross_entities=(),
                cross_relations=(),
                annotated=None,
            )
            for document in self.documents
        )
        assert next(rest, None) is None, "more sentences than the corpus has"
        return replace(self, documents=documents)


def _without_unplaced(sentence: Sentence) -> Sentence:
    if UNPLACED not in sentence.extra:
        return sentence
    return replace(sentence, extra={name: value for name, value in sentence.extra.items() if name != UNPLACED})


@dataclass(frozen=True)
class Labels:
    """The types that a model tells apart, from its training data; sorted, so that equal data give equal models.

    Class 0 is None everywhere. Entity type i is class i + 1. Relation type i is class 2 i + 1 where the first of two
    spans is the head, and 2 i + 2 where the second one is.
    """

    entity_types: tuple[str, ...]
    relation_types: tuple[str, ...]

    @classmethod
    def of(cls, sentences: Iterable[Sentence]) -> Labels:
        entities: set[str] = set()
        relations: set[str] = set()
        for sentence in sentences:
            entities.update(entity.type for entity in sentence.entities)
            relations.update(relation.type for relation in sentence.relations)
        return cls(tuple(sorted(entities)), tuple(sorted(relations)))

    @property
    def entity_classes(self) -> int:
        return len(self.entity_types) + 1

    @property
    def relation_classes(self) -> int:
        return 2 * len(self.relation_types) + 1
