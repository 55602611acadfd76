"""What predict.py writes: one JSON record a sentence.

    {"file": "notes.txt", "document": 0, "line": 1, "sentence": 0,
     "text": "John Smith works for IBM.", "start": 0, "end": 25,
     "words": ["John", "Smith", "works", "for", "IBM", "."],
     "word_offsets": [[0, 4], [5, 10], [11, 16], [17, 20], [21, 24], [24, 25]],
     "entities": [{"type": "Peop", "text": "John Smith", "start": 0, "end": 10, "words": [0, 2], "probability": 0.99},
                  {"type": "Org", "text": "IBM", "start": 21, "end": 24, "words": [4, 5], "probability": 0.98}],
     "relations": [{"type": "Work_For", "head": 0, "tail": 1, "probability": 0.95}]}

file: "-" is standard input. document: paragraphs of text or JSON records, counted from 0 over all inputs; with "id"
where the JSON record has one. line: from 1, where the sentence begins. sentence: in its document, from 0. start, end
and word_offsets: characters, half-open, of the input (see text_input.py); `words` of an entity: half-open in the
sentence's words. head and tail: positions in `entities`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from spe_dist.extraction.corpora.corpus import Entity, Sentence, Span
from spe_dist.extraction.predicting.json_input import place_words
from spe_dist.extraction.predicting.text_input import Place

PROBABILITY_DIGITS = 4
# Line breaks to some readers, which JSON lets stand; and halves of characters (in ids, in names of files that are no
# UTF-8), which UTF-8 cannot hold.
_ESCAPED = {code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029, *range(0xD800, 0xE000))}


def to_record(sentence: Sentence, place: Place | None = None) -> dict[str, Any]:
    """The record of a sentence. Without a place, offsets count as `Extractor.predict` gives the sentence's start."""
    if sentence.text is None or sentence.char_spans is None:
        _, placed = next(place_words([sentence.words]))
        sentence = replace(sentence, text=placed.text, char_spans=placed.char_spans)
    assert sentence.text is not None and sentence.char_spans is not None
    offset = place.start if place else int(sentence.extra.get("start", 0))
    record: dict[str, Any] = {}
    if place:
        record = {"file": place.file, "document": place.document}
        record |= {"id": place.id} if place.id is not None else {}
        record |= {"line": place.line, "sentence": place.sentence}
    record |= {"text": sentence.text, "start": offset, "end": offset + len(sentence.text)}
    record["words"] = list(sentence.words)
    record["word_offsets"] = [[start + offset, end + offset] for start, end in sentence.char_spans]
    record["entities"] = [_entity(sentence, entity, offset) for entity in sentence.entities]
    rows = {(entity.span, entity.type): i for i, entity in enumerate(sentence.entities)}
    record["relations"] = [
        {
            "type": relation.type,
            "head": rows[relation.head.span, relation.head.type],
            "tail": rows[relation.tail.span, relation.tail.type],
            "probability": _rounded(relation.probability),
        }
        for relation in sentence.relations
    ]
    return record


def to_line(record: dict[str, Any]) -> str:
    """A record as one line of JSON, without the line feed, whatever its text holds."""
    line = json.dumps(record, ensure_ascii=False, separators=(", ", ": "))
    return line if line.isascii() else line.translate(_ESCAPED)


def char_span(sentence: Sentence, entity: Entity) -> Span:
    """Where an entity stands in the sentence's text."""
    assert sentence.char_spans is not None
    return sentence.char_spans[entity.start][0], sentence.char_spans[entity.end - 1][1]


def above(sentence: Sentence, min_probability: float) -> Sentence:
    """Without entities and relations of lower probability, and without relations of entities left out."""
    if min_probability <= 0:
        return sentence
    entities = tuple(e for e in sentence.entities if _reaches(e.probability, min_probability))
    kept = set(entities)
    relations = tuple(
        r for r in sentence.relations if _reaches(r.probability, min_probability) and r.head in kept and r.tail in kept
    )
    return replace(sentence, entities=entities, relations=relations)


def _entity(sentence: Sentence, entity: Entity, offset: int) -> dict[str, Any]:
    start, end = char_span(sentence, entity)
    return {
        "type": entity.type,
        "text": (sentence.text or "")[start:end],
        "start": start + offset,
        "end": end + offset,
        "words": [entity.start, entity.end],
        "probability": _rounded(entity.probability),
    }


def _rounded(probability: float | None) -> float | None:
    return None if probability is None else round(probability, PROBABILITY_DIGITS)


def _reaches(probability: float | None, limit: float) -> bool:
    return probability is None or probability >= limit
