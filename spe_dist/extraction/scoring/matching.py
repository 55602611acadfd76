"""When a prediction is right: entities and relations as keys, which are equal exactly where METHOD.md (Scores) says so.

Boundaries are the first word, the end and, for a discontinuous entity, its parts: a span without gaps is no
discontinuous entity, even where both begin and end alike.

    entity     (type, boundaries)
    relation   (type, head's boundaries, tail's boundaries)
    ent_rel    (type, (head's boundaries, head's type), (tail's boundaries, tail's type))

The type comes first in all of them. Keys are held in sets, so duplicates count once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from spe_dist.errors import ConfigError
from spe_dist.extraction.corpora.corpus import (
    UNPLACED,
    Corpus,
    CrossEntity,
    CrossRelation,
    Document,
    Entity,
    Relation,
    Sentence,
    Span,
    joined,
    single_spaced,
)

METRICS = ("entity", "relation", "ent_rel")

Boundaries = tuple[int, int, tuple[Span, ...]]
Key = tuple[Any, ...]


@dataclass
class Marked:
    """What one sentence (or what lies across the sentences of one document) holds, as keys of the three metrics."""

    entity: set[Key] = field(default_factory=set)
    relation: set[Key] = field(default_factory=set)
    ent_rel: set[Key] = field(default_factory=set)

    def keys(self, metric: str) -> set[Key]:
        return getattr(self, metric)


def boundaries(entity: Entity | CrossEntity, offset: int = 0) -> Boundaries:
    """First word, end, and the parts of a discontinuous entity; `offset` is added to all of them."""
    if isinstance(entity, CrossEntity) or not entity.fragments:
        return entity.start + offset, entity.end + offset, ()
    parts = joined(entity.fragments)
    if parts == [(entity.start, entity.end)]:
        parts = []
    return entity.start + offset, entity.end + offset, tuple((start + offset, end + offset) for start, end in parts)


def entity_key(entity: Entity | CrossEntity, offset: int = 0) -> Key:
    """Type and boundaries."""
    return entity.type, boundaries(entity, offset)


def relation_key(relation: Relation | CrossRelation, symmetric: Collection[str] = (), offset: int = 0) -> Key:
    """Boundaries alone. The arguments of a symmetric type stand in the order of the text."""
    arguments = boundaries(relation.head, offset), boundaries(relation.tail, offset)
    return relation.type, *(sorted(arguments) if relation.type in symmetric else arguments)


def ent_rel_key(relation: Relation | CrossRelation, symmetric: Collection[str] = (), offset: int = 0) -> Key:
    """Boundaries and types of the arguments."""
    head, tail = relation.head, relation.tail
    arguments = (boundaries(head, offset), head.type), (boundaries(tail, offset), tail.type)
    return relation.type, *(sorted(arguments) if relation.type in symmetric else arguments)


def mark(
    entities: Iterable[Entity | CrossEntity],
    relations: Iterable[Relation | CrossRelation],
    symmetric: Collection[str] = (),
    known: Collection[Key] | None = None,
    offset: int = 0,
) -> Marked:
    """The keys of some entities and relations.

    `known` is None for gold, of which everything counts. For predictions it holds the keys of the predicted entities:
    a relation counts as predicted where its arguments are among them, by boundaries; for ent_rel by boundaries and
    type.
    """
    marked = Marked(entity={entity_key(entity, offset) for entity in entities})
    spans = None if known is None else {key[1] for key in known}
    for relation in relations:
        arguments = entity_key(relation.head, offset), entity_key(relation.tail, offset)
        if spans is None or all(argument[1] in spans for argument in arguments):
            marked.relation.add(relation_key(relation, symmetric, offset))
        if known is None or all(argument in known for argument in arguments):
            marked.ent_rel.add(ent_rel_key(relation, symmetric, offset))
    return marked


def mark_gold(sentence: Sentence, symmetric: Collection[str] = ()) -> Marked:
    """Keys of all gold."""
    marked = mark(sentence.entities, sentence.relations, symmetric)
    _mark_unplaced(marked, sentence, symmetric)
    return marked


def mark_predicted(sentence: Sentence, symmetric: Collection[str] = (), notices: Counter[str] | None = None) -> Marked:
    """Keys of the predictions that count. What does not is counted in `notices`."""
    known = {entity_key(entity) for entity in sentence.entities}
    marked = mark(sentence.entities, sentence.relations, symmetric, known)
    _mark_unplaced(marked, sentence, symmetric, needs_entities=True)
    if notices is not None and (sentence.relations or sentence.unplaced):
        everything = mark((), sentence.relations, symmetric)
        _mark_unplaced(everything, sentence, symmetric)
        _notice_lost(everything, marked, notices)
    return marked


def _mark_unplaced(
    marked: Marked, sentence: Sentence, symmetric: Collection[str] = (), needs_entities: bool = False
) -> None:
    """Add what names words that the sentence does not hold (nyt format): by text, since it has no boundaries.

    An argument has the type of the first entity of its text. needs_entities: only relations whose arguments are, by
    their texts, among the entities.
    """
    if not sentence.unplaced:
        return
    types: dict[str, str] = {}
    for mention in sentence.unplaced.get("entityMentions", []):
        if mention["label"]:  # without a type: an argument, no entity
            marked.entity.add((mention["label"], UNPLACED, single_spaced(mention["text"])))
            types.setdefault(single_spaced(mention["text"]), mention["label"])
    for entity in sentence.entities:
        types.setdefault(single_spaced(" ".join(sentence.words[entity.start : entity.end])), entity.type)
    for mention in sentence.unplaced.get("relationMentions", []):
        texts = single_spaced(mention["em1Text"]), single_spaced(mention["em2Text"])
        if needs_entities and not types.keys() >= set(texts):
            continue
        is_symmetric = mention["label"] in symmetric
        typed = [(text, types.get(text, "")) for text in texts]
        marked.relation.add((mention["label"], UNPLACED, *(sorted(texts) if is_symmetric else texts)))
        marked.ent_rel.add((mention["label"], UNPLACED, *(sorted(typed) if is_symmetric else typed)))


def _notice_lost(everything: Marked, counted: Marked, notices: Counter[str]) -> None:
    lost = len(everything.relation) - len(counted.relation)
    if lost:
        reason = "predicted relations with an argument that is not a predicted entity (not counted as predicted)"
        notices[reason] += lost
    lost_types = len(everything.ent_rel) - len(counted.ent_rel) - lost
    if lost_types > 0:
        notices[
            "predicted relations with an argument that is predicted with another type (not counted as predicted "
            "in Ent+Rel)"
        ] += lost_types


def check_symmetric(symmetric: Collection[str], *corpora: Corpus) -> None:
    """Raise ConfigError for a name that no relation of the corpora has."""
    types: set[str] = set()
    for document in (document for corpus in corpora for document in corpus.documents):
        types.update(relation.type for relation in document.cross_relations)
        for sentence in document.sentences:
            types.update(relation.type for relation in sentence.relations)
            types.update(mention["label"] for mention in sentence.unplaced.get("relationMentions", []))
    for name in symmetric:
        if name not in types:
            known = ", ".join(sorted(types)) or "none at all"
            raise ConfigError(f"symmetric type {name!r} is not a relation type of these files; they have {known}")


@dataclass(frozen=True)
class AcrossSentences:
    """What lies across sentences, by the number of the gold document in which it begins; positions count all words."""

    gold: dict[int, Marked]
    predicted: dict[int, Marked]


def mark_across(
    gold: Corpus, predicted: Corpus, symmetric: Collection[str] = (), notices: Counter[str] | None = None
) -> AcrossSentences:
    """Keys of entities and relations across sentences. Positions count the corpus's words, so documents may be cut
    differently in both files."""
    starts = [0, *accumulate(sum(len(s.words) for s in document.sentences) for document in gold.documents)]
    gold_marked = {
        number: mark(document.cross_entities, document.cross_relations, symmetric, None, starts[number])
        for number, document in enumerate(gold.documents)
        if document.cross_entities or document.cross_relations
    }
    predicted_marked: dict[int, Marked] = {}
    for document, offset in _with_offsets(predicted):
        if not document.cross_entities and not document.cross_relations:
            continue
        known = _entities_of(document, offset)
        marked = mark(document.cross_entities, document.cross_relations, symmetric, known, offset)
        if notices is not None:
            _notice_lost(mark((), document.cross_relations, symmetric, None, offset), marked, notices)
        for metric in METRICS:
            for key in marked.keys(metric):
                number = min(bisect_right(starts, _first_word(key, metric)), len(gold.documents)) - 1
                predicted_marked.setdefault(number, Marked()).keys(metric).add(key)
    return AcrossSentences(gold_marked, predicted_marked)


def _with_offsets(corpus: Corpus) -> Iterator[tuple[Document, int]]:
    offset = 0
    for document in corpus.documents:
        yield document, offset
        offset += sum(len(sentence.words) for sentence in document.sentences)


def _entities_of(document: Document, offset: int) -> set[Key]:
    known = {entity_key(entity, offset) for entity in document.cross_entities}
    for sentence in document.sentences:
        known.update(entity_key(entity, offset) for entity in sentence.entities)
        offset += len(sentence.words)
    return known


def _first_word(key: Key, metric: str) -> int:
    return key[1][0][0] if metric == "ent_rel" else key[1][0]
