"""Distant supervision (NYT of CoType, ARNOR and others): one sentence a line, mentions named by their text.

    {"sentText": "Ada wrote code", "articleId": "a1",
     "relationMentions": [{"em1Text": "Ada", "em2Text": "code", "label": "Made"}],
     "entityMentions": [{"start": 0, "label": "Person", "text": "Ada"}, {"start": 1, "label": "Work", "text": "code"}]}

Mentions are found by their words: those between spaces, or in ordinary text ("Acme, in London.") those of raw text.
`start` is believed where the words stand there, but not where it numbers the sentence's mentions, as in released files;
else the n-th entry of a text and label is its n-th occurrence, or the first.
em1 is the head. The labels "None" and "NA" mean no relation here as in all formats (see `no_label`), and so does
`is_noise` (ARNOR's test data: a label that a person refused).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from spe_dist.extraction.annotations.settings import DEFAULTS, AnnotationSettings
from spe_dist.extraction.corpora.corpus import UNPLACED, Document, Entity, Relation, Sentence, single_spaced
from spe_dist.extraction.formats.by_text.occurrences import TextWords, Words, looks_ordinary, ordinary_text
from spe_dist.extraction.formats.grouping import (
    Keyed,
    extra_beside_ids,
    group,
    keyed,
    ungroup,
)
from spe_dist.extraction.formats.no_label import NO_RELATION, means_nothing
from spe_dist.extraction.formats.node import Node
from spe_dist.extraction.formats.notices import (
    OTHER_TYPE,
    UNTYPED,
    Losses,
    add_extra,
    argument_positions,
    note_further_fields,
    note_words,
    read_probability,
    with_probability,
    without_fragments,
)
from spe_dist.extraction.formats.texts import read_words, text_fields

OWN_FIELDS = ("sentText", "entityMentions", "relationMentions", "tokens", UNPLACED)
ENTITY_FIELDS = ("start", "label", "text", "probability")
RELATION_FIELDS = ("em1Text", "em2Text", "em1Start", "em2Start", "label", "probability", "is_noise")

NOISE = "relation mentions marked as noise (no relation)"
ASIDE = "not trained on; scores compare them by text"
NOT_FOUND = f"entity mentions whose text is not in the sentence ({ASIDE})"
NOT_PLACED = f"relation mentions with an argument that is not in the sentence ({ASIDE})"
SEVERAL = "mentions whose text occurs several times (the first free occurrence is taken)"
NOT_AT_START = "entity mentions whose 'start' is not a word position of their text (found by text)"
NO_ENTITY = "relation arguments that are not listed entities (kept without a type)"
SEVERAL_ENTITIES = "relation arguments whose text several entities have (the first listed is taken)"
WITH_ITSELF = "relations of a text with itself (head and tail are two places where it stands)"
OWN_UNPLACED = f"fields {UNPLACED!r} of sentences, not kept (a name that conversions use)"
NO_TYPES = f"relation arguments in a file without entity mentions (entities of type {UNTYPED!r})"


def read(
    records: Iterable[Node], notices: Counter[str], predictions: bool = False, settings: AnnotationSettings = DEFAULTS
) -> Iterator[Document]:
    """Documents of records; predictions have the same fields as gold. `settings` are for ordinary text."""
    is_ordinary, rest = ordinary_text(records, "sentText", settings.language)
    return group(SentenceReader(record, notices, settings if is_ordinary else None).read() for record in rest)


class SentenceReader:
    """Reads one sentence. settings: how its text is to be split into words; None where it is tokenised."""

    def __init__(self, record: Node, notices: Counter[str], settings: AnnotationSettings | None):
        self.record, self.notices = record, notices
        if settings is not None and not record.has("tokens"):
            self.where: Words = TextWords(record.child("sentText").string(), notices, settings)
        else:
            words = read_words(record, notices)
            self.where = Words(words if record.has("tokens") else tuple(filter(None, words)))
        note_words(self.where.words, notices)
        self.entities: list[Entity] = []
        self.by_text: dict[str, list[Entity]] = defaultdict(list)  # with single spaces
        self.unplaced: dict[str, list[Any]] = defaultdict(list)

    def read(self) -> Keyed:
        self.lists_entities = self.record.has("entityMentions")
        mentions = self.record.child("entityMentions").items() if self.lists_entities else []
        are_numbers = self._starts_are_numbers(mentions)
        for node in mentions:
            self._entity(node, are_numbers)
        relations = [self._relation(node) for node in self.record.child("relationMentions").items()]
        placed = [relation for relation in relations if relation is not None]
        self.notices[OWN_UNPLACED] += self.record.has(UNPLACED)
        found = keyed(
            self.record,
            self.where.words,
            self.entities,
            placed,
            self.notices,
            own_fields=OWN_FIELDS,
            key_fields=("articleId",),
            kept={UNPLACED: dict(self.unplaced)} if self.unplaced else None,
        )
        if not isinstance(self.where, TextWords):
            return found
        sentence = replace(found.sentence, text=self.where.text, char_spans=self.where.char_spans)
        return replace(found, sentence=sentence)

    def _starts_are_numbers(self, mentions: list[Node]) -> bool:
        """Whether each `start` is the number of its mention and not all of them are positions of their texts: then
        those that are one are so by accident.
        """
        starts = [node.value.get("start") if isinstance(node.value, dict) else None for node in mentions]
        if starts != list(range(len(starts))):
            return False
        occurrences = (self.where.occurrences(self._text(node.child("text"))) for node in mentions)
        return any(found and self.where.numbered(start) not in found for start, found in enumerate(occurrences))

    def _entity(self, node: Node, start_is_number: bool) -> None:
        text, name = self._text(node.child("text")), node.child("label").label_or_none()
        note_further_fields(node, ENTITY_FIELDS, "entities", self.notices)
        ends = self.where.occurrences(text)
        starts = list(ends)
        if not starts:
            self.notices[NOT_FOUND] += 1
            self.unplaced["entityMentions"].append(node.value)
            return
        start = self.where.numbered(node.child("start").integer()) if node.has("start") else None
        if start not in starts or start_is_number:
            self.notices[NOT_AT_START] += start is not None and start not in starts
            self.notices[SEVERAL] += len(starts) > 1
            taken = {entity.start for entity in self.by_text[single_spaced(text)] if entity.type == name}
            start = next((position for position in starts if position not in taken), starts[0])
        self._add(text, Entity(start, ends[start], name, probability=read_probability(node)))

    def _add(self, text: str, entity: Entity) -> Entity:
        self.entities.append(entity)
        self.by_text[single_spaced(text)].append(entity)
        return entity

    def _relation(self, node: Node) -> Relation | None:
        texts = [self._text(node.child(f"{role}Text")) for role in ("em1", "em2")]
        name = node.child("label").label()
        note_further_fields(node, RELATION_FIELDS, "relations", self.notices)
        is_noise = node.has("is_noise") and node.child("is_noise").boolean()
        if means_nothing(name) or is_noise:
            self.notices[NO_RELATION.format(name) if means_nothing(name) else NOISE] += 1
            return None
        if not all(map(self.where.occurrences, texts)):
            self.notices[NOT_PLACED] += 1
            self.unplaced["relationMentions"].append(node.value)
            if not self.lists_entities:
                self._keep_arguments(texts, node)
            return None
        head, tail = (self._argument(text, node, role) for text, role in zip(texts, ("em1", "em2"), strict=True))
        if head == tail and not (node.has("em1Start") or node.has("em2Start")):
            tail = self._another(texts[1], head)
        return Relation(name, head, tail, read_probability(node))

    def _another(self, text: str, first: Entity) -> Entity:
        """What stands for a text a second time, in a relation of it with itself: `first` again where it stands once."""
        free = [
            (start, end)
            for start, end in self.where.occurrences(text).items()
            if end <= first.start or start >= first.end
        ]
        if not free:
            return first
        self.notices[WITH_ITSELF] += 1
        known = [entity for entity in self.by_text[single_spaced(text)] if entity.span in free]
        if known:
            return known[0]
        second = Entity(*free[0], first.type)
        return self._add(text, second) if first.type else second

    def _keep_arguments(self, texts: list[str], node: Node) -> None:
        """The entities that a relation names in a file without entity mentions, also where its words miss one."""
        for text, role in zip(texts, ("em1", "em2"), strict=True):
            mention = {"label": UNTYPED, "text": text}
            if self.where.occurrences(text):
                self._argument(text, node, role)
            elif mention not in self.unplaced["entityMentions"]:
                self.notices[NOT_FOUND] += 1
                self.unplaced["entityMentions"].append(mention)

    def _argument(self, text: str, node: Node, role: str) -> Entity:
        known, ends = self.by_text[single_spaced(text)], self.where.occurrences(text)
        if node.has(f"{role}Start"):
            start = node.child(f"{role}Start")
            number = self.where.numbered(start.integer())
            if number not in ends:
                start.fail(f"{text!r} does not stand at this word", "count words from 0, or remove the field")
            known = self._exact(text, [entity for entity in known if entity.start == number])
            return known[0] if known else Entity(number, ends[number], "")
        if known:
            known = self._exact(text, known)
            self.notices[SEVERAL_ENTITIES] += len({(entity.start, entity.type) for entity in known}) > 1
            return known[0]
        self.notices[SEVERAL] += len(ends) > 1
        start_word, end_word = next(iter(ends.items()))
        if not self.lists_entities:
            self.notices[NO_TYPES] += 1
            return self._add(text, Entity(start_word, end_word, UNTYPED))
        self.notices[NO_ENTITY] += 1
        return Entity(start_word, end_word, "")

    def _exact(self, text: str, known: list[Entity]) -> list[Entity]:
        """Of the entities that have a text but for its spaces those that have it to the letter, if any."""
        return [entity for entity in known if self.where.is_exactly(text, entity.span)] or known

    def _text(self, node: Node) -> str:
        if self.where.is_unusual:
            return node.string()
        text = single_spaced(node.string())
        if not text:
            node.fail("a mention needs words", "give the words of the mention")
        return text


def write(documents: Iterable[Document], losses: Losses) -> Iterator[dict[str, Any]]:
    """One record for each sentence."""
    for key, index, whole, fields in ungroup(documents, losses):
        sentence = without_fragments(whole, losses)
        entities, positions = argument_positions(sentence, losses)
        unplaced = sentence.unplaced
        mentions = [_mention(sentence.words, entity) for entity in entities] + unplaced.get("entityMentions", [])
        relations = _relations(sentence, entities, positions, losses)
        record: dict[str, Any] = {
            "sentId": sentence.extra.get("sentId", index),
            "articleId": key,
            **_text_fields(sentence.words),
            "relationMentions": relations + unplaced.get("relationMentions", []),
            "entityMentions": mentions,
            **fields,
        }
        losses[OWN_UNPLACED] += unplaced != sentence.extra.get(UNPLACED, {})
        extra = {name: value for name, value in extra_beside_ids(sentence, key).items() if name != UNPLACED}
        yield add_extra(record, extra, losses)


def _text_fields(words: Sequence[str]) -> dict[str, Any]:
    """The text, and `tokens` too where it would be taken for ordinary text."""
    fields = text_fields(words)
    return {**fields, "tokens": list(words)} if looks_ordinary([fields["sentText"]]) else fields


def _mention(words: Sequence[str], entity: Entity) -> dict[str, Any]:
    mention = {"start": entity.start, "label": entity.type, "text": " ".join(words[entity.start : entity.end])}
    return with_probability(mention, entity)


def _relations(
    sentence: Sentence, entities: Sequence[Entity], positions: Sequence[tuple[int, int]], losses: Losses
) -> list[dict[str, Any]]:
    """Arguments by text; also by position, where another entity with the text is listed earlier, or both have one."""
    texts = [" ".join(sentence.words[entity.start : entity.end]) for entity in entities]
    first: dict[str, Entity] = {}
    first_at: dict[tuple[str, int], Entity] = {}
    for entity, text in zip(entities, texts, strict=True):
        first.setdefault(text, entity)
        first_at.setdefault((text, entity.start), entity)
    mentions = []
    for relation, arguments in zip(sentence.relations, positions, strict=True):
        mention: dict[str, Any] = {}
        alike = texts[arguments[0]] == texts[arguments[1]]  # which a reader takes for two places
        for role, position in zip(("em1", "em2"), arguments, strict=True):
            argument, text = entities[position], texts[position]
            mention[f"{role}Text"] = text
            if alike or first[text] != argument:
                mention[f"{role}Start"] = argument.start
            losses[OTHER_TYPE] += first_at[text, argument.start] != argument
        mention["label"] = relation.type
        mentions.append(with_probability(mention, relation))
    return mentions
