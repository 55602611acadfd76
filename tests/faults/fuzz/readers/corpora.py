"""Readers of labelled corpora and of the exports of annotation tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from annotation_tools import DOCCANO, LABEL_STUDIO, PRODIGY, PUBTATOR
from corpora import CONLL, DOCRED, EXAMPLES, MULTIHEAD, TRIPLES

from tests.faults.fuzz.damage import json_damage, lines_damage
from tests.faults.fuzz.engine import Reader
from tests.faults.fuzz.readers.files import TEXT, file_of


def read_corpus_whole(path: Path) -> None:
    from spe_dist.extraction.corpora.statistics import count_corpus
    from spe_dist.extraction.formats import read_corpus, write_corpus

    corpus = read_corpus(path)
    count_corpus(corpus)
    write_corpus(corpus, path.with_name("written.json"), corpus.format)


def read_annotations(path: Path) -> None:
    from spe_dist.extraction.annotations.settings import AnnotationSettings
    from spe_dist.extraction.corpora.statistics import count_corpus
    from spe_dist.extraction.formats import read_corpus, write_corpus

    nearest = len(path.read_bytes()) % 2
    settings = AnnotationSettings("drop", "nearest") if nearest else AnnotationSettings("widen", "all")
    corpus = read_corpus(path, settings=settings)
    count_corpus(corpus)
    write_corpus(corpus, path.with_name("written.json"), "plain" if nearest else "dygie")


def brat_folder(folder: Path) -> Path:
    file_of("a.txt", TEXT)(folder)
    entities = "T1\tP 0 12\tAda Lovelace\nT2\tW 19 23\tcode\nT3\tX 0 3;19 23\tAda code\n"
    further = "E1\tw:T2\nA1\tx T1\n#1\tNote T1\thm\n*\tEquiv T1 T2\n"
    return file_of("a.ann", f"{entities}R1\tr Arg1:T1 Arg2:T2\n{further}")(folder)


def annotation_readers() -> list[Reader]:
    """Exports of annotation tools, and texts by character."""
    plain = {"text": TEXT, "entities": [[0, 3, "P"], {"pieces": [[4, 9], [19, 23]], "type": "W", "id": "w"}]}
    plain |= {"relations": [{"head": 0, "tail": "w", "type": "r"}], "word_offsets": [[0, 3], [4, 12]]}
    found = {"text": "Ada left.", "words": ["Ada", "left", "."], "word_offsets": [[0, 3], [4, 8], [8, 9]]}
    found |= {"file": "a.txt", "line": 1, "start": 0, "end": 9, "relations": [{"type": "r", "head": 0, "tail": 0}]}
    found |= {"entities": [{"type": "P", "start": 0, "end": 3, "probability": 0.5}]}
    records: dict[str, list[dict[str, Any]]] = {"plain": [plain] * 2, "predicted": [found] * 2}
    records |= {"doccano": [DOCCANO] * 2, "label_studio": [LABEL_STUDIO], "prodigy": [PRODIGY] * 2}
    exports = {name: "".join(f"{json.dumps(record)}\n" for record in listed) for name, listed in records.items()}
    readers = [
        Reader(f"annotations, {name}", json_damage, file_of("a.json", lines), read_annotations)
        for name, lines in exports.items()
    ]
    readers.append(Reader("annotations, brat", lines_damage, brat_folder, read_annotations))
    return [*readers, Reader("annotations, pubtator", lines_damage, file_of("a.txt", PUBTATOR), read_annotations)]


def word_format_readers() -> list[Reader]:
    """Corpora of columns, of entities with several mentions, and of entities named by their text."""
    ordinary = {**EXAMPLES["nyt"], "sentText": "Ada Lovelace, (they say) wrote code."}
    records = {"docred": DOCRED, "triples": TRIPLES, "nyt of ordinary text": ordinary}
    readers = [
        Reader(f"corpus, {name}", json_damage, file_of("a.json", f"{json.dumps(record)}\n" * 2), read_annotations)
        for name, record in records.items()
    ]
    for name, columns in (("conll", CONLL), ("multihead", MULTIHEAD)):
        readers.append(Reader(f"corpus, {name}", lines_damage, file_of("a.txt", columns * 2), read_annotations))
    return readers


def corpus_readers() -> list[Reader]:
    readers = []
    for name, record in EXAMPLES.items():
        lines = f"{json.dumps(record)}\n{json.dumps(record)}\n"
        readers.append(Reader(f"corpus, {name}", json_damage, file_of("a.json", lines), read_corpus_whole))
    listed = json.dumps([EXAMPLES["spert"], EXAMPLES["spert"]], indent=1)
    readers.append(Reader("corpus, one list", json_damage, file_of("a.json", listed), read_corpus_whole))
    return readers + annotation_readers() + word_format_readers()
