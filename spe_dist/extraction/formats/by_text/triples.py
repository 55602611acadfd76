"""Texts with triples (CasRel, PFN): one sentence a record, entities named by their text alone.

    {"text": "Ada owns Acme, in London.", "triple_list": [["Ada", "owns", "Acme"], ["Acme", "in", "London"]]}

Head, relation, tail. Entities are found as in the `nyt` format, in tokenised and in ordinary text; they have no types.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from spe_dist.extraction.annotations.settings import DEFAULTS, AnnotationSettings
from spe_dist.extraction.corpora.corpus import Document
from spe_dist.extraction.formats.by_text import distant
from spe_dist.extraction.formats.node import Node

TEXT, TRIPLES = "text", "triple_list"


def read(
    records: Iterable[Node], notices: Counter[str], predictions: bool = False, settings: AnnotationSettings = DEFAULTS
) -> Iterator[Document]:
    """Documents of records; predictions have the same fields as gold. `settings` are for ordinary text.

    Raises:
        DataError: a triple is none.
    """
    return distant.read((_as_mentions(record) for record in records), notices, predictions, settings)


def _as_mentions(record: Node) -> Node:
    """The record in the form of the `nyt` format, whose reader finds no fault in it."""
    text = record.child(TEXT).string()
    mentions = [_mention(node) for node in record.child(TRIPLES).items()]
    further = {
        name: value for name, value in record.fields().items() if name not in (TEXT, TRIPLES, *distant.OWN_FIELDS)
    }
    return Node({"sentText": text, "relationMentions": mentions, **further}, record.place)


def _mention(node: Node) -> dict[str, Any]:
    parts = node.items()
    if len(parts) != 3:
        node.fail(f"3 values are expected, not {len(parts)}", "write [head, relation, tail]")
    head, relation, tail = parts
    for argument in (head, tail):
        if not argument.string().strip():
            argument.fail("an entity needs words", "give the words of the entity as they stand in the text")
    return {"em1Text": head.value, "em2Text": tail.value, "label": relation.label()}
