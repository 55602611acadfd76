"""The released code of the paper (PSPE), also UniRE: one sentence a line.

    {"sentText": "Ada wrote code", "articleId": "d1", "sentId": 0,
     "entityMentions": [{"emId": "E1", "text": "Ada", "offset": [0, 1], "label": "Person"},
                        {"emId": "E2", "text": "code", "offset": [2, 3], "label": "Work"}],
     "relationMentions": [{"em1Id": "E1", "em1Text": "Ada", "em2Id": "E2", "em2Text": "code", "label": "Made"}]}

Offsets count the words between single spaces, ends are exclusive; [s1, e1, s2, e2, ...] are the parts of a
discontinuous entity. The empty words between double spaces count in offsets, as in the released code, unless the
mentions' texts say otherwise; what is read has none. em1 is the head. Neighbours with the same `articleId` are
sentences of one document.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

from spe_dist.extraction.corpora.corpus import Document, Entity, Relation, joined
from spe_dist.extraction.formats.grouping import (
    Keyed,
    extra_beside_ids,
    group,
    keyed,
    ungroup,
)
from spe_dist.extraction.formats.node import Node, shown
from spe_dist.extraction.formats.notices import (
    Losses,
    add_extra,
    argument_positions,
    note_further_fields,
    note_words,
    read_probability,
    with_probability,
)
from spe_dist.extraction.formats.texts import read_words, same_text, text_fields

OWN_FIELDS = ("sentText", "entityMentions", "relationMentions", "tokens")
ENTITY_FIELDS = ("emId", "text", "offset", "label", "probability")
RELATION_FIELDS = ("em1Id", "em1Text", "em2Id", "em2Text", "label", "probability")
OTHER_TEXT = "mentions whose text differs from the words at their offset (the offset is taken)"
MOST_OTHER_TEXTS = 0.1  # of all mentions so far in a file; more means that offsets or words are counted otherwise
TOLERATED_TEXTS = 2  # so few are passed over anywhere but in the first mentions
EXAMPLE = "offsets count words from 0, ends exclusive: the first word alone is [0, 1]"


def read(records: Iterable[Node], notices: Counter[str], predictions: bool = False) -> Iterator[Document]:
    """Documents of records; predictions have the same fields as gold."""
    reader = _Reader(notices)
    return group(reader.sentence(record) for record in records)


class _Reader:
    def __init__(self, notices: Counter[str]):
        self.notices = notices
        self.n_mentions = 0

    def sentence(self, record: Node) -> Keyed:
        words = read_words(record, self.notices)
        mentions = record.child("entityMentions").items()
        borders: Sequence[int] = range(len(words) + 1)
        if "" in words and not record.has("tokens"):
            words, borders = self._without_empty(words, mentions)
        note_words(words, self.notices)
        entities: dict[Any, Entity] = {}
        for node in mentions:
            identity = node.child("emId")
            if identity.identity() in entities:
                identity.fail("another entity of the sentence has this id", "give each entity an id of its own")
            entities[identity.value] = self._entity(node, words, borders)
        relations = [self._relation(node, entities, words) for node in record.child("relationMentions").items()]
        listed = list(entities.values())
        return keyed(record, words, listed, relations, self.notices, own_fields=OWN_FIELDS, key_fields=("articleId",))

    def _without_empty(self, words: tuple[str, ...], mentions: list[Node]) -> tuple[tuple[str, ...], Sequence[int]]:
        """The words that hold something, and their border by the border that an offset gives."""
        dense = tuple(word for word in words if word)
        fits = [
            all(same_text(node.child("text").string(), words_at(choice, node)) for node in mentions if node.has("text"))
            for choice in (words, dense)
        ]
        if fits[1] and not fits[0]:
            return dense, range(len(dense) + 1)
        return dense, list(accumulate(map(bool, words), initial=0))

    def _entity(self, node: Node, words: tuple[str, ...], borders: Sequence[int]) -> Entity:
        offset = node.child("offset")
        given = [border.integer() for border in offset.items()]
        if len(given) < 2 or len(given) % 2:
            offset.fail("pairs of start and end are expected", EXAMPLE)
        parts = sorted(zip(given[::2], given[1::2], strict=True))
        if not all(0 <= start < end < len(borders) for start, end in parts):
            offset.fail(f"the sentence has {len(borders) - 1} words, and 0 <= start < end <= words must hold", EXAMPLE)
        if any(first[1] > second[0] for first, second in pairwise(parts)):
            offset.fail("the parts of the entity overlap", "give parts without common words")
        parts = [(borders[start], borders[end]) for start, end in parts]
        if any(start == end for start, end in parts):
            offset.fail("nothing stands there but the empty word between two spaces", EXAMPLE)
        note_further_fields(node, ENTITY_FIELDS, "entities", self.notices)
        if node.has("text"):
            covered = [word for start, end in parts for word in words[start:end]]
            self._compare(node.child("text"), covered, str(given))
        parts = joined(parts)
        return Entity(
            parts[0][0],
            parts[-1][1],
            node.child("label").label_or_none(),
            tuple(parts) if len(parts) > 1 else (),
            read_probability(node),
        )

    def _relation(self, node: Node, entities: dict[Any, Entity], words: tuple[str, ...]) -> Relation:
        arguments = []
        for role in ("em1", "em2"):
            identity = node.child(f"{role}Id")
            if identity.identity() not in entities:
                known = shown([*entities]) if entities else "none"
                identity.fail(
                    f"no entity of the sentence has this id (there are: {known})", "list the entity, or correct the id"
                )
            entity = entities[identity.value]
            if node.has(f"{role}Text"):
                parts = entity.fragments or (entity.span,)
                covered = [word for start, end in parts for word in words[start:end]]
                self._compare(node.child(f"{role}Text"), covered, f"of entity {shown(identity.value)}")
            arguments.append(entity)
        note_further_fields(node, RELATION_FIELDS, "relations", self.notices)
        return Relation(node.child("label").label(), arguments[0], arguments[1], read_probability(node))

    def _compare(self, text: Node, words: list[str], where: str) -> None:
        self.n_mentions += 1
        if same_text(text.string(), words):
            return
        self.notices[OTHER_TEXT] += 1
        differing = self.notices[OTHER_TEXT]
        if differing > MOST_OTHER_TEXTS * self.n_mentions and (
            differing > TOLERATED_TEXTS or self.n_mentions <= TOLERATED_TEXTS / MOST_OTHER_TEXTS
        ):
            text.fail(
                f"the words at offset {where} are {shown(' '.join(words))}", f"correct the text or offset; {EXAMPLE}"
            )


def words_at(words: tuple[str, ...], node: Node) -> list[str]:
    """The words that an entity's offset covers, as far as there are such."""
    borders = [border.integer() for border in node.child("offset").items()]
    return [word for start, end in zip(borders[::2], borders[1::2], strict=False) for word in words[start:end]]


def write(documents: Iterable[Document], losses: Losses) -> Iterator[dict[str, Any]]:
    """One record for each sentence."""
    for key, index, sentence, fields in ungroup(documents, losses):
        entities, positions = argument_positions(sentence, losses)
        texts = [_text(sentence.words, entity) for entity in entities]
        mentions = [
            with_probability(
                {"emId": f"E{number}", "text": text, "offset": _offset(entity), "label": entity.type}, entity
            )
            for number, (entity, text) in enumerate(zip(entities, texts, strict=True), 1)
        ]
        relations = [
            with_probability(
                {
                    "em1Id": f"E{head + 1}",
                    "em1Text": texts[head],
                    "em2Id": f"E{tail + 1}",
                    "em2Text": texts[tail],
                    "label": relation.type,
                },
                relation,
            )
            for relation, (head, tail) in zip(sentence.relations, positions, strict=True)
        ]
        record: dict[str, Any] = {
            "sentId": sentence.extra.get("sentId", index),
            "articleId": key,
            **text_fields(sentence.words),
            "entityMentions": mentions,
            "relationMentions": relations,
            **fields,
        }
        yield add_extra(record, extra_beside_ids(sentence, key), losses)


def _text(words: tuple[str, ...], entity: Entity) -> str:
    return " ".join(word for start, end in entity.fragments or (entity.span,) for word in words[start:end])


def _offset(entity: Entity) -> list[int]:
    return [border for part in entity.fragments or (entity.span,) for border in part]
