"""What a corpus holds, counted: sizes, types, and all that makes gold hard or impossible to find for a joint model.

Everything is counted as the file has it, gold across sentences and marks whose words the sentence does not hold
included; the ceiling of recall is over distinct marks, as the scores are. Two entities overlap where they have a word
in common: SciERC's training part has 114 of 5,598 that overlap with another one of their sentence, in 51 of its 1,861
sentences (all are nested; 61 pairs).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from spe_dist.extraction.corpora.corpus import Corpus, Document, Entity, Relation, Sentence, Span, single_spaced
from spe_dist.extraction.scoring.ceiling import Ceiling, gold_ceiling

SIZES = {
    "documents": "documents",
    "sentences": "sentences",
    "words": "words",
    "entities": "entities",
    "relations": "relations",
    "longest_sentence": "longest sentence (words)",
}
ENTITY_COUNTS = {
    "overlapping": "share a word with another entity of the sentence",
    "overlapping_sentences": "sentences with such entities",
    "nested_pairs": "pairs, one inside the other",
    "crossing_pairs": "pairs that overlap, neither inside the other",
    "same_span_pairs": "pairs of different types on the same words",
    "discontinuous": "discontinuous (with words between their parts)",
    "duplicate_entities": "duplicates (same words and type again)",
    "cross_entities": "across sentences",
    "unplaced_entities": "whose words are not in the sentence",
}
RELATION_COUNTS = {
    "self_relations": "of an entity with itself",
    "overlapping_arguments": "between entities that overlap",
    "duplicate_relations": "duplicates (same type, head and tail again)",
    "further_on_pair": "further types or directions on a pair that has one",
    "opposite_directions": "pairs with one type in both directions",
    "untyped_arguments": "with an argument that is not an entity",
    "contested_arguments": "with an argument that overlaps another entity",
    "cross_relations": "across sentences",
    "unplaced_relations": "with an argument whose words are not in the sentence",
}


@dataclass
class CorpusStatistics:
    """Counts of one file; the names of `counts` are the keys of SIZES, ENTITY_COUNTS and RELATION_COUNTS.

    `ceiling`: the highest recall that the model can have on it.
    """

    source: str
    format: str
    counts: Counter[str] = field(default_factory=Counter)
    entity_types: Counter[str] = field(default_factory=Counter)
    relation_types: Counter[str] = field(default_factory=Counter)
    longest_at: str = ""
    has_documents: bool = True
    notices: Counter[str] = field(default_factory=Counter)
    ceiling: Ceiling = field(default_factory=Ceiling)

    def to_json(self) -> dict[str, Any]:
        names = (*SIZES, *ENTITY_COUNTS, *RELATION_COUNTS)
        return {
            "source": self.source,
            "format": self.format,
            "counts": {name: self.counts[name] for name in names},
            "entity_types": dict(sorted(self.entity_types.items())),
            "relation_types": dict(sorted(self.relation_types.items())),
            "longest_at": self.longest_at,
            "has_documents": self.has_documents,
            "notices": dict(self.notices),
            "ceiling": self.ceiling.to_json(),
        }


def count_corpus(corpus: Corpus) -> CorpusStatistics:
    """All counts of a corpus."""
    statistics = CorpusStatistics(corpus.source, corpus.format, notices=corpus.notices, ceiling=gold_ceiling(corpus))
    counts = statistics.counts
    counts["documents"] = len(corpus.documents)
    statistics.has_documents = corpus.format == "dygie" or any(
        len(document.sentences) > 1 for document in corpus.documents
    )
    for document in corpus.documents:
        counts.update(_cross_counts(document))
        statistics.entity_types.update(entity.type for entity in document.cross_entities)
        statistics.relation_types.update(relation.type for relation in document.cross_relations)
    for sentence in corpus.sentences:
        unplaced_entities, unplaced_relations = _unplaced(sentence)
        counts["sentences"] += 1
        counts["words"] += len(sentence.words)
        counts["entities"] += len(sentence.entities)
        counts["relations"] += len(sentence.relations)
        if len(sentence.words) > counts["longest_sentence"]:
            counts["longest_sentence"], statistics.longest_at = len(sentence.words), sentence.origin
        statistics.entity_types.update(entity.type for entity in sentence.entities)
        statistics.entity_types.update(name for name, _ in unplaced_entities)
        statistics.relation_types.update(relation.type for relation in sentence.relations)
        statistics.relation_types.update(name for name, _, _ in unplaced_relations)
        counts.update(entity_counts(sentence.entities))
        counts.update(relation_counts(sentence))
        counts.update(_unplaced_counts(sentence, unplaced_entities, unplaced_relations))
    return statistics


def _cross_counts(document: Document) -> Counter[str]:
    entities, relations = len(document.cross_entities), len(document.cross_relations)
    untyped = sum(not (r.head.type and r.tail.type) for r in document.cross_relations)
    return Counter(
        entities=entities,
        relations=relations,
        cross_entities=entities,
        cross_relations=relations,
        untyped_arguments=untyped,
    )


def _unplaced(sentence: Sentence) -> tuple[list[tuple[str, str]], list[tuple[str, str, str]]]:
    """The marks whose words the sentence does not hold, by type and text, as scores take them.

    A mention without a type is an argument and no entity.
    """
    entities = sentence.unplaced.get("entityMentions", ())
    relations = sentence.unplaced.get("relationMentions", ())
    return (
        [(mention["label"], single_spaced(mention["text"])) for mention in entities if mention["label"]],
        [
            (mention["label"], single_spaced(mention["em1Text"]), single_spaced(mention["em2Text"]))
            for mention in relations
        ],
    )


def _unplaced_counts(
    sentence: Sentence, entities: Sequence[tuple[str, str]], relations: Sequence[tuple[str, str, str]]
) -> Counter[str]:
    distinct_entities, distinct_relations = set(entities), set(relations)
    typed = {text for _, text in entities}
    if relations:
        typed.update(single_spaced(" ".join(sentence.words[entity.start : entity.end])) for entity in sentence.entities)
    return Counter(
        entities=len(entities),
        relations=len(relations),
        unplaced_entities=len(entities),
        unplaced_relations=len(relations),
        duplicate_entities=len(entities) - len(distinct_entities),
        duplicate_relations=len(relations) - len(distinct_relations),
        untyped_arguments=sum(not {head, tail} <= typed for _, head, tail in relations),
    )


def entity_counts(entities: Sequence[Entity]) -> Counter[str]:
    """The counts of ENTITY_COUNTS in one sentence."""
    distinct = list(dict.fromkeys(entities))
    counts = Counter(
        duplicate_entities=len(entities) - len(distinct),
        discontinuous=sum(bool(entity.fragments) for entity in entities),
    )
    for first, second in _overlapping_pairs(distinct):
        counts[_overlap(_words(first), _words(second))] += 1
    overlapping = _overlapping(distinct)
    counts["overlapping"] = sum(entity in overlapping for entity in entities)
    counts["overlapping_sentences"] = bool(overlapping)
    return counts


def _overlapping_pairs(entities: Sequence[Entity]) -> Iterator[tuple[Entity, Entity]]:
    by_start = sorted(entities, key=lambda entity: entity.span)
    starts = [entity.start for entity in by_start]
    for i, first in enumerate(by_start):
        for second in by_start[i + 1 : bisect_left(starts, first.end)]:
            if _words(first) & _words(second):
                yield first, second


def _overlapping(entities: Sequence[Entity]) -> set[Entity]:
    return {entity for pair in _overlapping_pairs(entities) for entity in pair}


def _words(entity: Entity) -> set[int]:
    return {word for start, end in entity.fragments or (entity.span,) for word in range(start, end)}


def _overlap(first: set[int], second: set[int]) -> str:
    """The name of the count for two sets of words that overlap."""
    if first == second:
        return "same_span_pairs"
    if first <= second or second <= first:
        return "nested_pairs"
    return "crossing_pairs"


def relation_counts(sentence: Sentence) -> Counter[str]:
    """The counts of RELATION_COUNTS in one sentence."""
    entities = set(sentence.entities)
    contested = _overlapping(list(entities))
    distinct = {_key(relation) for relation in sentence.relations}
    pairs = Counter(frozenset((head, tail)) for _, head, tail in distinct)
    return Counter(
        duplicate_relations=len(sentence.relations) - len(distinct),
        self_relations=_count(sentence.relations, lambda r: r.head.span == r.tail.span),
        overlapping_arguments=_count(
            sentence.relations, lambda r: r.head.span != r.tail.span and bool(_words(r.head) & _words(r.tail))
        ),
        untyped_arguments=_count(sentence.relations, lambda r: not {r.head, r.tail} <= entities),
        contested_arguments=_count(sentence.relations, lambda r: bool({r.head, r.tail} & contested)),
        further_on_pair=sum(pairs.values()) - len(pairs),
        opposite_directions=sum((name, tail, head) in distinct for name, head, tail in distinct if head < tail),
    )


def _key(relation: Relation) -> tuple[str, Span, Span]:
    return relation.type, relation.head.span, relation.tail.span


def _count(relations: Iterable[Relation], holds: Callable[[Relation], bool]) -> int:
    return sum(map(holds, relations))
