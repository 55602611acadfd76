"""DyGIE, SciERC and PURE: one document a line.

    {"doc_key": "d1", "sentences": [["Ada", "wrote", "code"], ...],
     "ner": [[[0, 0, "Person"], [2, 2, "Work"]], ...], "relations": [[[0, 0, 2, 2, "Made"]], ...]}

Offsets count the words of the document and ends are inclusive. A relation names its arguments by their spans; its head
stands first. Where a span has several types, an argument takes the last listed one, as DyGIE++ and PURE read it, and as
the released code of the paper scores it. Other fields (`clusters`, ...) are kept with the document.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from spe_dist.errors import DataError
from spe_dist.extraction.corpora.corpus import CrossEntity, CrossRelation, Document, Entity, Relation, Sentence, Span
from spe_dist.extraction.formats.grouping import document_key
from spe_dist.extraction.formats.node import Node
from spe_dist.extraction.formats.notices import OTHER_TYPE, Losses, add_extra, note_words, without_fragments

SENTENCE_FIELDS = "sentence_fields"  # what further fields sentences have, in order; ours, other tools pass over it
OWN_FIELDS = ("doc_key", "sentences", "ner", "relations", SENTENCE_FIELDS)
SEVERAL_TYPES = "relation arguments whose span has several entity types (the last listed is taken)"
NO_ENTITY = "relation arguments that are not entities (kept without a type)"
PREDICTED_FIELDS = ("predicted_ner", "predicted_relations")
BESIDE = "documents with predictions beside the gold (the gold is read, the predictions are not kept)"
NO_GOLD = "documents with predictions and no gold, taken for gold"
GIVEN_ENTITIES = "documents of predictions without 'predicted_ner' (the entities of 'ner' are read)"
FURTHER_VALUES = "entries with values behind their type that are not a probability, not kept"
CROSS_VALUES = "entries across sentences with a probability or other values behind their type, not kept"
NO_SENTENCES = "documents without sentences"
NO_RELATIONS = "documents of predictions without 'predicted_relations' (read as none)"
EXAMPLE = "offsets count the words of the document from 0, ends inclusive: the first word alone is [0, 0, TYPE]"


def read(records: Iterable[Node], notices: Counter[str], predictions: bool = False) -> Iterator[Document]:
    """Documents of records. predictions: take `predicted_ner` and `predicted_relations` where the documents have them.

    Raises:
        DataError: some documents have them and others do not, so that gold would count as predicted.
    """
    first: _DocumentReader | None = None
    for record in records:
        reader = _DocumentReader(record, notices, predictions)
        first = first or reader
        if (reader.ner, reader.relations) != (first.ner, first.relations):
            raise DataError(
                f"{record.place} is read from {reader.ner!r} and {reader.relations!r}, but {first.record.place} from "
                f"{first.ner!r} and {first.relations!r}: gold and predictions would be mixed; give all documents the "
                f"same fields, lists of empty lists where nothing is predicted"
            )
        yield reader.read()


class _DocumentReader:
    def __init__(self, record: Node, notices: Counter[str], predictions: bool):
        fields = record.fields()
        has_predicted = not fields.keys().isdisjoint(PREDICTED_FIELDS)
        use_predicted = has_predicted and (predictions or "ner" not in fields)
        self.ner, self.relations = PREDICTED_FIELDS if use_predicted else ("ner", "relations")
        notices[NO_GOLD] += use_predicted and not predictions
        notices[BESIDE] += has_predicted and not use_predicted
        if use_predicted and "predicted_ner" not in fields and "ner" in fields:
            self.ner = "ner"
            notices[GIVEN_ENTITIES] += 1
        self.record, self.notices = record, notices
        self.sentences = [node.words() for node in record.child("sentences").items()]
        self.borders = [0, *accumulate(map(len, self.sentences))]
        self.types: dict[Span, list[str]] = {}  # of the whole document
        self.cross_entities: list[CrossEntity] = []
        self.cross_relations: list[CrossRelation] = []

    def read(self) -> Document:
        fields = self.record.fields()
        if not self.sentences:
            self.notices[NO_SENTENCES] += 1
        for words in self.sentences:
            note_words(words, self.notices)
        entities = [self._entities(index, nodes) for index, nodes in enumerate(self._per_sentence(self.ner))]
        per_sentence: list[list[Node]] = [[] for _ in self.sentences]
        if self.relations == "predicted_relations" and self.relations not in fields:
            self.notices[NO_RELATIONS] += 1
        else:
            per_sentence = self._per_sentence(self.relations)
        relations = [self._relations(index, nodes) for index, nodes in enumerate(per_sentence)]
        extras = self._sentence_extras()
        return Document(
            id=document_key(self.record, "doc_key"),
            sentences=tuple(
                Sentence(words, tuple(e), tuple(r), origin=f"{self.record.place}, sentence {number}", extra=extra)
                for number, (words, e, r, extra) in enumerate(
                    zip(self.sentences, entities, relations, extras, strict=True), 1
                )
            ),
            cross_entities=tuple(sorted(self.cross_entities, key=lambda entity: self._begins_in(entity))),
            cross_relations=tuple(sorted(self.cross_relations, key=lambda relation: self._begins_in(relation.head))),
            extra={key: value for key, value in fields.items() if key not in {*OWN_FIELDS, *PREDICTED_FIELDS}},
        )

    def _sentence_extras(self) -> list[Mapping[str, Any]]:
        if not self.record.has(SENTENCE_FIELDS):
            return [{} for _ in self.sentences]
        return [node.fields() for node in self._lists_of_sentences(SENTENCE_FIELDS)]

    def _lists_of_sentences(self, name: str) -> list[Node]:
        nodes = self.record.child(name)
        if len(nodes.items()) != len(self.sentences):
            nodes.fail(
                f"it holds {len(nodes.items())} lists for {len(self.sentences)} sentences",
                "give one list for each sentence, also where it is empty",
            )
        return nodes.items()

    def _per_sentence(self, name: str) -> list[list[Node]]:
        return [node.items() for node in self._lists_of_sentences(name)]

    def _entities(self, index: int, nodes: list[Node]) -> list[Entity]:
        start, end = self.borders[index], self.borders[index + 1]
        entities = []
        for node in nodes:
            parts = _parts(node, 3, "[first word, last word, TYPE]")
            span = self._span(node, parts[0], parts[1])
            name = parts[2].label()
            if span[0] >= end or span[1] <= start:
                self._misplaced(node, index)
            self.types.setdefault(span, []).append(name)
            if start <= span[0] and span[1] <= end:
                probability = self._probability(parts[3:])
                entities.append(Entity(span[0] - start, span[1] - start, name, probability=probability))
            else:
                self.notices[CROSS_VALUES] += len(parts) > 3
                self.cross_entities.append(CrossEntity(*span, name))
        return entities

    def _relations(self, index: int, nodes: list[Node]) -> list[Relation]:
        start, end = self.borders[index], self.borders[index + 1]
        relations = []
        for node in nodes:
            parts = _parts(node, 5, "[head's first word, last word, tail's first word, last word, TYPE]")
            spans = self._span(node, parts[0], parts[1]), self._span(node, parts[2], parts[3])
            name = parts[4].label()
            head, tail = (self._argument(span) for span in spans)
            if all(start <= span[0] and span[1] <= end for span in spans):
                arguments = [Entity(e.start - start, e.end - start, e.type) for e in (head, tail)]
                relations.append(Relation(name, arguments[0], arguments[1], self._probability(parts[5:])))
                continue
            within = {self._sentence_of(span) for span in spans}
            if len(within) == 1 and None not in within:
                self._misplaced(node, index)
            self.notices[CROSS_VALUES] += len(parts) > 5
            self.cross_relations.append(CrossRelation(name, head, tail))
        return relations

    def _argument(self, span: Span) -> CrossEntity:
        types = self.types.get(span, [])
        if not types:
            self.notices[NO_ENTITY] += 1
        elif len(set(types)) > 1:
            self.notices[SEVERAL_TYPES] += 1
        return CrossEntity(*span, types[-1] if types else "")

    def _probability(self, values: list[Node]) -> float | None:
        """The last of the values behind the type, where it can be a probability (DyGIE++'s stands behind a score)."""
        numbers = [n.value for n in values if isinstance(n.value, int | float) and not isinstance(n.value, bool)]
        if len(numbers) == len(values) and numbers and 0 <= numbers[-1] <= 1:
            return float(numbers[-1])
        self.notices[FURTHER_VALUES] += bool(values)
        return None

    def _begins_in(self, entity: CrossEntity) -> int:
        return bisect_right(self.borders, entity.start) - 1

    def _sentence_of(self, span: Span) -> int | None:
        """The sentence that holds all of a span."""
        index = bisect_right(self.borders, span[0]) - 1
        return index if span[1] <= self.borders[index + 1] else None

    def _span(self, node: Node, first: Node, last: Node) -> Span:
        """Half-open, in words of the document."""
        start, end, total = first.integer(), last.integer() + 1, self.borders[-1]
        if start < 0 or end > total:
            node.fail(f"the document has {total} words (0 to {total - 1})", EXAMPLE)
        if start >= end:
            node.fail("it ends before it starts", EXAMPLE)
        return start, end

    def _misplaced(self, node: Node, index: int) -> None:
        start, end = self.borders[index], self.borders[index + 1]
        words = f"whose words are {start} to {end - 1} of the document" if start < end else "which has no words"
        node.fail(
            f"it stands with sentence {index + 1}, {words}",
            "count words from the document's start, and list each entry with its sentence",
        )


def _parts(node: Node, least: int, form: str) -> list[Node]:
    """An entry's values. Two more may follow: a score, and a probability or, alone, just that."""
    parts = node.items()
    if not least <= len(parts) <= least + 2:
        node.fail(f"{least} values are expected, not {len(parts)}", f"write {form}")
    return parts


def write(documents: Iterable[Document], losses: Losses) -> Iterator[dict[str, Any]]:
    """One record for each document."""
    for document in documents:
        borders = [0, *accumulate(len(sentence.words) for sentence in document.sentences)]
        ner: list[list[list[Any]]] = [[] for _ in document.sentences]
        relations: list[list[list[Any]]] = [[] for _ in document.sentences]
        types: dict[Span, str] = {}
        for index, sentence in enumerate(document.sentences):
            flat = without_fragments(sentence, losses)
            start = borders[index]
            ner[index] = [[start + e.start, start + e.end - 1, e.type, *_given(e.probability)] for e in flat.entities]
            types.update({(start + e.start, start + e.end): e.type for e in flat.entities})
        for cross in document.cross_entities:
            ner[bisect_right(borders, cross.start) - 1].append([cross.start, cross.end - 1, cross.type])
            types[cross.start, cross.end] = cross.type
        for index, sentence in enumerate(document.sentences):
            relations[index] = [_relation(relation, borders[index], types, losses) for relation in sentence.relations]
        for crossing in document.cross_relations:
            index = bisect_right(borders, crossing.head.start) - 1
            relations[index].append(_relation(crossing, 0, types, losses))
        record: dict[str, Any] = {
            "doc_key": document.id,
            "sentences": [list(sentence.words) for sentence in document.sentences],
            "ner": ner,
            "relations": relations,
        }
        if any(sentence.extra for sentence in document.sentences):
            record[SENTENCE_FIELDS] = [dict(sentence.extra) for sentence in document.sentences]
        yield add_extra(record, document.extra, losses)


def _relation(relation: Relation | CrossRelation, start: int, types: Mapping[Span, str], losses: Losses) -> list[Any]:
    entry: list[Any] = []
    for argument in (relation.head, relation.tail):
        losses[OTHER_TYPE] += types.get((start + argument.start, start + argument.end), "") != argument.type
        entry += [start + argument.start, start + argument.end - 1]
    return [*entry, relation.type, *_given(getattr(relation, "probability", None))]


def _given(probability: float | None) -> list[float]:
    return [] if probability is None else [probability]
