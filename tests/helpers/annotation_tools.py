"""One text as each tool of annotation exports it, with the same entities and relations."""

from __future__ import annotations

from typing import Any

from spe_dist.extraction.corpora.corpus import Corpus

TEXT = "🙂 Ada Lovelace wrote code. It ran."  # one character before the entities, two UTF-16 units
TOKENS = ((0, 1), (2, 5), (6, 14), (15, 20), (21, 25), (25, 26), (27, 29), (30, 33), (33, 34))
ENTITIES = [("Ada Lovelace", "Person"), ("code", "Work"), ("It", "Work")]
RELATIONS = [("wrote", "Ada Lovelace", "code"), ("made by", "code", "Ada Lovelace")]

DOCCANO: dict[str, Any] = {
    "id": 7,
    "text": TEXT,
    "entities": [
        {"id": 41, "label": "Person", "start_offset": 2, "end_offset": 14},
        {"id": 45, "label": "Work", "start_offset": 21, "end_offset": 25},
        {"id": 46, "label": "Work", "start_offset": 27, "end_offset": 29},
    ],
    "relations": [
        {"id": 3, "from_id": 41, "to_id": 45, "type": "wrote"},
        {"id": 4, "from_id": 45, "to_id": 41, "type": "made by"},
    ],
    "Comments": [],
}


def region(identity: str, start: int, end: int, text: str, *labels: str, **further: Any) -> dict[str, Any]:
    """A labelled region of Label Studio."""
    value = {"start": start, "end": end, "text": text, "labels": list(labels)}
    return {"id": identity, "from_name": "label", "to_name": "text", "type": "labels", "value": value, **further}


def arrow(head: str, tail: str, *labels: str, direction: str = "right") -> dict[str, Any]:
    """A relation of Label Studio."""
    return {"type": "relation", "from_id": head, "to_id": tail, "direction": direction, "labels": list(labels)}


REGIONS = [
    region("a", 3, 15, "Ada Lovelace", "Person"),
    region("b", 22, 26, "code", "Work"),
    region("c", 28, 30, "It", "Work"),
]


def task(*results: dict[str, Any], text: str = TEXT, **further: Any) -> dict[str, Any]:
    """A task of Label Studio with one annotation."""
    annotation = {"id": 11, "was_cancelled": False, "ground_truth": False, "result": list(results)}
    return {"id": 7, "data": {"text": text}, "annotations": [annotation], "predictions": [], **further}


LABEL_STUDIO = task(*REGIONS, arrow("a", "b", "wrote"), arrow("a", "b", "made by", direction="left"))


def prodigy_span(first: int, last: int, label: str | None) -> dict[str, Any]:
    """A span of Prodigy that covers tokens, the last one included."""
    start, end = TOKENS[first][0], TOKENS[last][1]
    return {"start": start, "end": end, "token_start": first, "token_end": last, "label": label}


def prodigy_relation(head: int, child: int, label: str, **spans: dict[str, Any]) -> dict[str, Any]:
    return {"head": head, "child": child, "label": label, "color": "#c5bdf4", **spans}


_ADA, _CODE = prodigy_span(1, 2, "Person"), prodigy_span(4, 4, "Work")
PRODIGY: dict[str, Any] = {
    "id": 7,
    "text": TEXT,
    "_input_hash": 1,
    "tokens": [{"text": TEXT[s:e], "start": s, "end": e, "id": i, "ws": True} for i, (s, e) in enumerate(TOKENS)],
    "spans": [_ADA, _CODE, prodigy_span(6, 6, "Work")],
    "relations": [
        prodigy_relation(2, 4, "wrote", head_span=_ADA, child_span=_CODE),
        prodigy_relation(4, 2, "made by"),
    ],
    "answer": "accept",
}

PUBTATOR = (
    "7|t|🙂 Ada Lovelace wrote code.\n"
    "7|a|It ran.\n"
    "7\t2\t14\tAda Lovelace\tPerson\tP1\n"
    "7\t21\t25\tcode\tWork\tW1\n"
    "7\t27\t29\tIt\tWork\tW2\n"
    "7\twrote\tP1\tW1\n"
    "7\tmade by\tW1\tP1\n"
)


def entities_of(corpus: Corpus) -> list[tuple[str, str]]:
    """The words and the type of each entity, in order."""
    return [
        (" ".join(sentence.words[entity.start : entity.end]), entity.type)
        for sentence in corpus.sentences
        for entity in sentence.entities
    ]


def relations_of(corpus: Corpus) -> list[tuple[str, str, str]]:
    """The type of each relation in a sentence, and the words of its head and its tail."""
    return [
        (
            relation.type,
            " ".join(sentence.words[relation.head.start : relation.head.end]),
            " ".join(sentence.words[relation.tail.start : relation.tail.end]),
        )
        for sentence in corpus.sentences
        for relation in sentence.relations
    ]
