"""Types that say that there is nothing: `no_relation`, `None`, `NA`, `O`. What has one is no relation and no entity.

Corpora made for classifiers list every pair of entities, most of them as `no_relation`; corpora made for taggers may
list the words outside of all entities. Trained as types of their own they would be found everywhere and scored. It is
decided here, behind the readers of all formats, and each type is named among the notices with its count.

`O` alone may abbreviate a name, such as that of organisations: where other types of the file have a single letter too,
or a relation has an argument of that type, it stays one. In predictions it always does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from spe_dist.extraction.annotations.document import AnnotatedDocument, keeping
from spe_dist.extraction.corpora.corpus import UNPLACED, CrossRelation, Document, Relation, Sentence

NO_LABELS = frozenset({"na", "none", "null", "norelation", "norelations", "norel", "noentity", "nolabel", "notype"})
OUTSIDE = "O"

NO_RELATION = "relations of the type {!r}, taken as no relation (rename the type where it is one)"
NO_ENTITY = "entities of the type {!r}, taken as no entities (rename the type where they are)"
KEPT = "{} of the type {!r}, kept as a type since {}"
NO_PLACE = "{} of the type {!r}, which read back as none"

Related = TypeVar("Related", Relation, CrossRelation)


def means_nothing(label: str) -> bool:
    """Whether a type says that there is nothing, however it is spelled: "no_relation", "No Relation", "N/A", "None"."""
    return len(label) < 20 and re.sub(r"[\W_]+", "", label).casefold() in NO_LABELS


def without_no_labels(
    documents: Iterable[Document], notices: Counter[str], predictions: bool = False
) -> tuple[Document, ...]:
    """The documents without entities and relations of types that say that there is nothing; `notices` names them.

    A relation with an argument of such a type keeps it as an argument that is no entity.

    Args:
        predictions: whether this is what a system found.
    """
    given = tuple(documents)
    entities, relations = (_nothing(counts) for counts in _types(given))
    if OUTSIDE in entities | relations:
        _settle_outside(given, entities, relations, notices, predictions)
    if not entities and not relations:
        return given
    return tuple(_Without(entities, relations, notices).document(document) for document in given)


def note_no_labels(documents: Iterable[Document], losses: Counter[str]) -> None:
    """Count what is written and would not be read back."""
    for kind, counts in zip(("entities", "relations"), _types(tuple(documents)), strict=True):
        for name in _nothing(counts) - {OUTSIDE}:
            losses[NO_PLACE.format(kind, name)] += counts[name]


def _types(documents: tuple[Document, ...]) -> tuple[Counter[str], Counter[str]]:
    """Types of entities and of relations, whichever way a document holds them."""
    entities: Counter[str] = Counter()
    relations: Counter[str] = Counter()
    for document in documents:
        entities.update([entity.type for entity in document.cross_entities])
        relations.update([relation.type for relation in document.cross_relations])
        for sentence in document.sentences:
            entities.update([entity.type for entity in sentence.entities])
            relations.update([relation.type for relation in sentence.relations])
            for mention in sentence.unplaced.get("entityMentions", ()):
                entities[mention["label"]] += 1
            for mention in sentence.unplaced.get("relationMentions", ()):
                relations[mention["label"]] += 1
    return entities, relations


def _nothing(types: Iterable[str]) -> set[str]:
    return {name for name in types if name == OUTSIDE or means_nothing(name)}


def _settle_outside(
    documents: tuple[Document, ...],
    entities: set[str],
    relations: set[str],
    notices: Counter[str],
    predictions: bool,
) -> None:
    """Take `O` out of both sets where it is an abbreviation."""
    for kind, names, counts in zip(("entities", "relations"), (entities, relations), _types(documents), strict=True):
        if OUTSIDE not in names:
            continue
        letters = sorted(name for name in counts if len(name) == 1 and name != OUTSIDE)
        reason = f"other types are single letters too ({', '.join(letters)})" if letters else ""
        if not reason and names is entities and OUTSIDE in _argument_types(documents, relations):
            reason = "relations have it as an argument"
        if reason or predictions:
            names.discard(OUTSIDE)
        if reason and not predictions:
            notices[KEPT.format(kind, OUTSIDE, reason)] += counts[OUTSIDE]


def _argument_types(documents: tuple[Document, ...], without: set[str]) -> set[str]:
    found: set[str] = set()
    for document in documents:
        relations: list[Relation | CrossRelation] = [*document.cross_relations]
        for sentence in document.sentences:
            relations += sentence.relations
        for relation in relations:
            found |= set() if relation.type in without else {relation.head.type, relation.tail.type}
    return found


@dataclass(frozen=True)
class _Without:
    entities: set[str]
    relations: set[str]
    notices: Counter[str]

    def document(self, document: Document) -> Document:
        sentences = tuple(self.sentence(sentence) for sentence in document.sentences)
        return replace(
            document,
            sentences=sentences,
            cross_entities=self._kept(document.cross_entities, self.entities, NO_ENTITY, lambda e: e.type),
            cross_relations=self._related(document.cross_relations),
            annotated=None if document.annotated is None else self.annotated(document.annotated),
        )

    def annotated(self, document: AnnotatedDocument) -> AnnotatedDocument:
        """What conversions between annotations by character write; its notices are those of the sentences."""
        relations = tuple(r for r in document.relations if r.type not in self.relations)
        used = {position for relation in relations for position in (relation.head, relation.tail)}
        stays = [span.type not in self.entities or row in used for row, span in enumerate(document.spans)]
        return keeping(replace(document, relations=relations), stays)

    def sentence(self, sentence: Sentence) -> Sentence:
        entities = self._kept(sentence.entities, self.entities, NO_ENTITY, lambda e: e.type)
        relations = self._related(sentence.relations)
        if not sentence.unplaced and entities == sentence.entities and relations == sentence.relations:
            return sentence
        return replace(sentence, entities=entities, relations=relations, extra=self._extra(sentence))

    def _extra(self, sentence: Sentence) -> Mapping[str, Any]:
        if not sentence.unplaced:
            return sentence.extra
        both = (
            ("entityMentions", self.entities, NO_ENTITY),
            ("relationMentions", self.relations, NO_RELATION),
        )
        lists = {
            name: list(self._kept(sentence.unplaced.get(name, ()), types, reason, lambda mention: mention["label"]))
            for name, types, reason in both
        }
        return {**sentence.extra, UNPLACED: {name: kept for name, kept in lists.items() if kept}}

    def _related(self, relations: tuple[Related, ...]) -> tuple[Related, ...]:
        kept = self._kept(relations, self.relations, NO_RELATION, lambda relation: relation.type)
        return tuple(self._untyped(relation) for relation in kept)

    def _untyped(self, relation: Related) -> Related:
        for role in ("head", "tail"):
            argument = getattr(relation, role)
            if argument.type in self.entities:
                relation = replace(relation, **{role: replace(argument, type="")})
        return relation

    def _kept(self, items: Iterable[Any], types: set[str], reason: str, type_of: Callable[[Any], str]) -> Any:
        kept = tuple(item for item in items if type_of(item) not in types)
        for item in items:
            if type_of(item) in types:
                self.notices[reason.format(type_of(item))] += 1
        return kept
