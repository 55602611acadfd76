"""One sentence in each format of corpora, and ways to change and write it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spe_dist.extraction.corpora.corpus import Corpus, Document, Entity

ADA, CODE, LONDON = Entity(0, 2, "Person"), Entity(3, 4, "Work"), Entity(1, 2, "Place")
DYGIE = {
    "doc_key": "d1",
    "sentences": [["Ada", "Lovelace", "wrote", "code"], ["In", "London", "."]],
    "ner": [[[0, 1, "Person"], [3, 3, "Work"]], [[5, 5, "Place"]]],
    "relations": [[[3, 3, 0, 1, "Made-By"]], []],
    "clusters": [[[0, 1]]],
}
SPERT = {
    "tokens": ["Ada", "Lovelace", "wrote", "code"],
    "entities": [{"type": "Person", "start": 0, "end": 2}, {"type": "Work", "start": 3, "end": 4}],
    "relations": [{"type": "Made-By", "head": 1, "tail": 0}],
    "orig_id": 7,
}
PSPE = {
    "sentId": 0,
    "articleId": "d1",
    "sentText": "Ada Lovelace wrote code",
    "entityMentions": [
        {"emId": "E1", "text": "Ada Lovelace", "offset": [0, 2], "label": "Person"},
        {"emId": "E2", "text": "code", "offset": [3, 4], "label": "Work"},
    ],
    "relationMentions": [
        {"em1Id": "E2", "em1Text": "code", "em2Id": "E1", "em2Text": "Ada Lovelace", "label": "Made-By"}
    ],
    "wordpieceSentText": "kept",
}
NYT = {
    "sentText": "Ada Lovelace wrote code\r\n",
    "articleId": "a1",
    "relationMentions": [{"em1Text": "code", "em2Text": "Ada Lovelace", "label": "Made-By"}],
    "entityMentions": [
        {"start": 0, "label": "Person", "text": "Ada Lovelace"},
        {"start": 1, "label": "Work", "text": "code"},
    ],
}
# Formats that are read and not written
DOCRED = {
    "title": "Acme",
    "sents": [["Ada", "owns", "Acme", ".", "Acme", "is", "Acme"], [], ["The", "firm", "is", "in", "London", "."]],
    "vertexSet": [
        [{"name": "Ada", "pos": [0, 1], "sent_id": 0, "type": "PER", "global_pos": [0, 0], "index": "0_0"}],
        [
            {"name": "Acme", "pos": [2, 3], "sent_id": 0, "type": "ORG"},
            {"name": "Acme", "pos": [4, 5], "sent_id": 0, "type": "ORG"},
            {"name": "The firm", "pos": [0, 2], "sent_id": 2, "type": "ORG"},
        ],
        [{"name": "London", "pos": [4, 5], "sent_id": 2, "type": "LOC"}],
    ],
    "labels": [
        {"h": 0, "t": 1, "r": "owns", "evidence": [0]},
        {"h": 1, "t": 2, "r": "in", "evidence": []},
        {"h": 2, "t": 0, "r": "home", "evidence": [0, 2]},
    ],
    "index": 7,
}
TRIPLES = {
    "text": "Ada Lovelace's firm, Acme, is based in London.",
    "triple_list": [["Ada Lovelace", "owns", "Acme"], ["Acme", "based in", "London"], ["Acme", "owner", "Byron"]],
    "id": 7,
}
MULTIHEAD = (
    "#doc 5121\n"
    "0\tAda\tB-Peop\t['N']\t[0]\n"
    "1\tLovelace\tI-Peop\t['Owns', 'Lives_In']\t[3, 5]\n"
    "2\towns\tO\t['N']\t[2]\n"
    "3\tAcme\tB-Org\t['N']\t[3]\n"
    "4\tin\tO\t['N']\t[4]\n"
    "5\tLondon\tB-Loc\t['N']\t[5]\n"
)
CONLL = (
    "-DOCSTART- O\n\nAda NNP B-NP B-Person\nLovelace NNP I-NP E-Person\nowns VBZ O O\nAcme NNP B-NP S-Org\n\n"
    "Bob NNP B-NP I-Person\n"
)
EXAMPLES: dict[str, dict[str, Any]] = {"dygie": DYGIE, "spert": SPERT, "pspe": PSPE, "nyt": NYT}
WORD_FORMATS = tuple(EXAMPLES)


def put(folder: Path, *records: Any, name: str = "file.json") -> Path:
    path = folder / name
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return path


def plain(corpus: Corpus) -> list[Document]:
    """Documents without what says from which file they are."""
    return [
        replace(document, sentences=tuple(replace(sentence, origin="") for sentence in document.sentences))
        for document in corpus.documents
    ]


def changed(record: Any, keys: Sequence[str | int], value: Any) -> Any:
    """A deep copy with one value replaced; with KeyError as value, removed."""
    copy = json.loads(json.dumps(record))
    inner = copy
    for key in keys[:-1]:
        inner = inner[key]
    if value is KeyError:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    return copy
