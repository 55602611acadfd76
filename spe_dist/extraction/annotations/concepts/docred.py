"""DocRED and Re-DocRED: documents of given words, entities of several mentions, relations between entities.

    {"title": "Acme", "sents": [["Ada", "owns", "Acme", "."], ["The", "firm", "is", "in", "London", "."]],
     "vertexSet": [[{"name": "Ada", "sent_id": 0, "pos": [0, 1], "type": "PER"}],
                   [{"name": "Acme", "sent_id": 0, "pos": [2, 3], "type": "ORG"},
                    {"name": "The firm", "sent_id": 1, "pos": [0, 2], "type": "ORG"}]],
     "labels": [{"h": 0, "t": 1, "r": "P127", "evidence": [0]}]}

`pos` counts the words of its sentence, its end is exclusive; `h` and `t` number the entities. A relation holds between
the mentions that stand in one sentence, of those that are its evidence where these are given: all pairs of mentions, or
the nearest. Where no sentence has both, it becomes one relation between the nearest mentions, across sentences.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from spe_dist.extraction.annotations.concepts.mentions import Mentions
from spe_dist.extraction.annotations.document import AnnotatedDocument, AnnotatedRelation, AnnotatedSpan, Characters
from spe_dist.extraction.annotations.settings import AnnotationSettings
from spe_dist.extraction.formats.grouping import document_key
from spe_dist.extraction.formats.node import Node, shown
from spe_dist.extraction.formats.notices import NO_WORDS, note, note_further_fields
from spe_dist.extraction.formats.texts import same_text

OTHER_NAME = "mentions whose name is not what stands at their words (the words are taken)"
OWN_FIELDS = {"title", "sents", "vertexSet", "labels"}
MENTION_FIELDS = ("name", "pos", "sent_id", "type", "global_pos", "index")
LABEL_FIELDS = ("h", "t", "r", "evidence")
NO_LABELS = "documents without 'labels', read as without relations"


def read(records: Iterable[Node], notices: Counter[str], settings: AnnotationSettings) -> Iterator[AnnotatedDocument]:
    """Documents of records, in order.

    Raises:
        DataError: a field is missing or has another kind of value, or a mention or relation lies outside.
    """
    return (_Document(record, notices, settings).read() for record in records)


class _Document:
    def __init__(self, record: Node, notices: Counter[str], settings: AnnotationSettings) -> None:
        self.record, self.notices, self.settings = record, notices, settings
        self.sentences: list[list[Characters]] = []  # where their words are in the text
        self.spans: list[AnnotatedSpan] = []
        self.numbers: list[int] = []  # of each span's sentence

    def read(self) -> AnnotatedDocument:
        lists = [node.words() for node in self.record.child("sents").items()]
        self.text = "\n".join(map(" ".join, lists))
        position = 0
        for words in lists:
            self.sentences.append([])
            for word in words:
                self.sentences[-1].append((position, position + len(word)))
                position += len(word) + 1
            position += not words
        given = [words for words in self.sentences if words]
        self.notices[NO_WORDS] += len(self.sentences) - len(given)
        entities = [list(map(self._mention, node.items())) for node in self.record.child("vertexSet").items()]
        return AnnotatedDocument(
            document_key(self.record, "title"),
            self.text,
            tuple(self.spans),
            tuple(dict.fromkeys(self._relations(entities))),
            tokens=tuple(word for words in given for word in words),
            sentences=tuple((words[0][0], words[-1][1]) for words in given),
            origin=self.record.place,
            extra={name: value for name, value in self.record.fields().items() if name not in OWN_FIELDS},
        )

    def _mention(self, node: Node) -> int:
        """The position of a mention among the spans."""
        number = node.child("sent_id")
        if not 0 <= number.integer() < len(self.sentences):
            number.fail(f"the document has {len(self.sentences)} sentences", "count them from 0")
        words = self.sentences[number.value]
        place = node.child("pos")
        borders = [border.integer() for border in place.items()]
        if len(borders) != 2 or not 0 <= borders[0] < borders[1] <= len(words):
            place.fail(
                f"its sentence has {len(words)} words", "give [first word, word behind the last], counted from 0"
            )
        start, end = words[borders[0]][0], words[borders[1] - 1][1]
        if node.has("name") and not same_text(node.child("name").string(), [self.text[start:end]]):
            note(self.notices, OTHER_NAME, f"{shown(node.value['name'])}, {node.place}")
        note_further_fields(node, MENTION_FIELDS, "entities", self.notices)
        self.spans.append(AnnotatedSpan(((start, end),), node.child("type").label()))
        self.numbers.append(number.value)
        return len(self.spans) - 1

    def _relations(self, entities: list[list[int]]) -> Iterator[AnnotatedRelation]:
        if not self.record.has("labels"):
            self.notices[NO_LABELS] += 1
            return
        mentions = Mentions(self.spans, self.numbers, self.settings.concept_pairs, self.notices)
        for node in self.record.child("labels").items():
            note_further_fields(node, LABEL_FIELDS, "relations", self.notices)
            heads, tails = (self._entity(node.child(role), entities) for role in ("h", "t"))
            evidence = node.child("evidence").items() if node.has("evidence") else []
            sentences = {sentence.integer() for sentence in evidence}
            yield from mentions.relations(heads, tails, node.child("r").label(), node.place, sentences)

    def _entity(self, node: Node, entities: list[list[int]]) -> list[int]:
        if not 0 <= node.integer() < len(entities):
            node.fail(f"the document has {len(entities)} entities", "give the entity's position in `vertexSet`, from 0")
        return entities[node.value]
