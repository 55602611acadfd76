"""Tags of words to entities: BIO, BIOES, BILOU, BMES and IOB1 are read alike.

    Ada B-Person, Lovelace I-Person, owns O

An entity begins where a tag says so, or goes on without one that has begun; it ends where the next tag does not go on
with it. So every sequence of tags has one reading, and what a scheme does not allow is counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from spe_dist.extraction.corpora.corpus import Entity
from spe_dist.extraction.formats.notices import UNTYPED

GOING_ON = frozenset("IMEL")
ENDING = frozenset("ELSUW")
EXAMPLE = "O, B-TYPE, I-TYPE, or with E-, S- (BIOES), L-, U- (BILOU)"

BEGINS = "tags I-, M-, E- or L- that begin an entity, as in IOB1 (read as B-)"
OTHER_ENTITY = "tags I-, M-, E- or L- of another type than the tag before (an entity begins there)"
NO_END = "entities without the tag E-, L-, S- or U- that ends them elsewhere in the file (read up to their last tag)"
NO_TYPES = f"tags without a type (entities of type {UNTYPED!r})"

_TAG = re.compile(r"([BIESLUMW])(?:[-_](.*[^\W\d_].*))?")  # a type has a letter: "B-12" is a word


class Tag(NamedTuple):
    """What a tag says of a word: nothing ("O"), or its place in an entity ("B", "I", ...) of a type."""

    place: str
    type: str


OUTSIDE = Tag("O", "")


def parse_tag(text: str) -> Tag | None:
    """The tag that a text is; None where it is none. Without a type, as in "B", it has the type UNTYPED."""
    if text == "O":
        return OUTSIDE
    found = _TAG.fullmatch(text)
    return Tag(found[1], found[2] or UNTYPED) if found else None


def says_ends(tags: Iterable[Tag]) -> bool:
    """Whether the tags of a file are of a scheme that marks the last word of an entity."""
    return any(tag.place in ENDING for tag in tags)


def entities_of(tags: Sequence[Tag], has_ends: bool, notices: Counter[str]) -> list[Entity]:
    """The entities of a sentence, in order. has_ends: whether `says_ends` holds for its file."""
    entities: list[Entity] = []
    start: int | None = None
    kind = ""
    for index, tag in enumerate((*tags, OUTSIDE)):
        goes_on = start is not None and tag.place in GOING_ON and tag.type == kind
        is_after_another = start is not None and not goes_on
        if start is not None and not goes_on:
            notices[NO_END] += has_ends
            entities.append(Entity(start, index, kind))
            start = None
        if tag == OUTSIDE:
            continue
        if not goes_on:
            if tag.place in GOING_ON:
                notices[OTHER_ENTITY if is_after_another else BEGINS] += 1
            start, kind = index, tag.type
        if tag.place in ENDING and start is not None:
            entities.append(Entity(start, index + 1, kind))
            start = None
    return entities
