"""Which format a file has: by the fields of its records or by its first line, never by the file's name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from spe_dist.errors import DataError
from spe_dist.extraction.annotations import doccano, label_studio, predicted, prodigy, pubtator
from spe_dist.extraction.formats.columns import format_of_columns
from spe_dist.extraction.formats.node import Node, shown

COLUMN_FORMATS = ("conll", "multihead")
FORMATS = (
    *("dygie", "spert", "pspe", "nyt", "plain", "doccano", "label_studio", "prodigy", "pubtator"),
    *("brat", "predicted", "docred", "triples"),
    *COLUMN_FORMATS,
)
FIELDS = {
    "dygie": "'sentences', 'ner', 'relations'",
    "spert": "'tokens', 'entities', 'relations'",
    "pspe": "'sentText', 'entityMentions' with 'emId' and 'offset', 'relationMentions' with 'em1Id' and 'em2Id'",
    "nyt": "'sentText', 'relationMentions' with 'em1Text' and 'em2Text'",
    "plain": "'text', 'entities' with 'start' and 'end', 'relations'",
    "doccano": "'text', 'entities' with 'start_offset', 'relations' with 'from_id'; or 'text', 'label'",
    "label_studio": "'data', 'annotations' with 'result'",
    "prodigy": "'text', 'spans', 'relations' with 'head' and 'child', 'answer'",
    "triples": "'text', 'triple_list'",
    "docred": "'sents', 'vertexSet', 'labels'",
    "conll": "no JSON: one word a line and its tag (B-TYPE, I-TYPE, O) in columns",
    "multihead": "no JSON: number, word, tag, ['relation', ...] and [other word, ...] in columns",
}
WHOLE = {  # fields that together leave no doubt; a record may have telling fields of another format besides
    "pspe": ({"sentText", "entityMentions"}, {"sentText", "relationMentions"}),
    "spert": ({"tokens", "entities", "relations"},),
    "dygie": ({"sentences", "ner"}, {"sentences", "predicted_ner"}),
    "docred": ({"sents", "vertexSet"},),
    "triples": ({"text", "triple_list"},),
}
# pspe: or nyt, which has the same fields
TELLING = {"pspe": "sentText", "spert": "tokens", "dygie": "sentences", "docred": "vertexSet", "triples": "triple_list"}
TOOLS = {"label_studio": label_studio, "prodigy": prodigy, "doccano": doccano}  # told by their modules
LINE_FORMATS: dict[str, re.Pattern[str]] = {"pubtator": pubtator.FIRST_LINE}  # not JSON: how the first line begins
REMEDY = "formats and their fields are: " + "; ".join(f"{name}: {fields}" for name, fields in FIELDS.items())


def format_of_lines(text: str, source: str, wanted: str) -> str | None:
    """The format of a file that is not JSON; None where it may be JSON.

    Raises:
        DataError: it has no known format, or is not `wanted`, where that is not "auto".
    """
    start = text.lstrip()
    first = start.partition("\n")[0]
    name = next((name for name, pattern in LINE_FORMATS.items() if pattern.match(first)), None)
    name = name or format_of_columns(text)
    may_be_json = start.startswith(("{", "["))
    if name is None and not may_be_json:
        if wanted in COLUMN_FORMATS:
            return wanted  # whose reader says what is wrong
        line = text.count("\n", 0, len(text) - len(start)) + 1
        raise DataError(
            f"{source}, line {line} begins with {shown(first[:40])}, which is neither JSON nor another known format: "
            f"spe predict and spe shards make take text without labels, training and scores need labels; {REMEDY}"
        )
    if wanted != "auto" and name != wanted and (name or wanted in LINE_FORMATS or wanted in COLUMN_FORMATS):
        raise DataError(
            f"{source} has {f'the format {name}' if name else 'another format'}, not {wanted} as asked; "
            f"leave the format out to have it recognised by content, or give the right file"
        )
    return name


def formats_of(record: Node) -> tuple[str, ...]:
    """The formats that a record can be read as: one; or several, where it has no annotation.

    Raises:
        DataError: the record has no known format.
    """
    if not isinstance(record.value, dict):
        record.fail("each record must be an object with named fields", REMEDY)
    fields = record.value
    named = [name for name, wholes in WHOLE.items() if any(fields.keys() >= whole for whole in wholes)]
    if not named and (annotated := _of_text(fields)):
        return annotated
    named = named or [name for name, field in TELLING.items() if field in fields]
    if named:
        return _of_sent_text(fields) if named[0] == "pspe" else (named[0],)
    raise DataError(f"{record.place} has the fields {shown(sorted(fields))} and so no known format; {REMEDY}")


def _of_text(fields: dict[str, Any]) -> tuple[str, ...]:
    """The formats of a text with labelled characters that a record can have: two, where it has no entities."""
    tool = next((name for name, module in TOOLS.items() if module.recognises(fields)), None)
    if tool:
        return ("plain", tool) if tool == "doccano" and fields.get("entities") == [] else (tool,)
    if predicted.recognises(fields):
        return ("predicted",)
    if isinstance(fields.get("text"), str) and isinstance(fields.get("entities"), list):
        return ("plain",) if not {"tokens", "words"} & fields.keys() else ()
    return ()


def _of_sent_text(fields: dict[str, Any]) -> tuple[str, ...]:
    entities = _objects(fields.get("entityMentions"))
    relations = _objects(fields.get("relationMentions"))
    if any("emId" in entity or "offset" in entity for entity in entities):
        return ("pspe",)
    if any("em1Id" in relation or "em2Id" in relation for relation in relations):
        return ("pspe",)
    if entities or relations or "entityMentions" not in fields:
        return ("nyt",)
    return ("pspe", "nyt")


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def detect(records: Iterable[Node], wanted: str) -> tuple[str, Iterator[Node]]:
    """The format of a stream of records, and the stream again from its start.

    Args:
        wanted: a name of FORMATS, or "auto". Records without annotations can have several formats; then the first one
            with annotations decides, and where there is none the first of these formats is taken.

    Raises:
        DataError: also later from the stream, where a record has another format than the first.
    """
    rest = iter(records)
    held: list[Node] = []
    decided, decided_at = "", ""
    for record in rest:
        held.append(record)
        possible = formats_of(record)
        if len(possible) == 1 or wanted in possible:
            decided, decided_at = (wanted if wanted in possible else possible[0]), record.place
            break
    decided = decided or (formats_of(held[0])[0] if held else wanted)
    if wanted not in ("auto", decided):
        raise DataError(
            f"{decided_at or held[0].place} has the format {decided}, not {wanted} as asked; "
            f"leave the format out to have it recognised by content, or give the right file"
        )

    def checked() -> Iterator[Node]:
        yield from (_same(record, decided, decided_at) for record in held)
        yield from (_same(record, decided, decided_at) for record in rest)

    return decided, checked()


def _same(record: Node, decided: str, decided_at: str) -> Node:
    possible = formats_of(record)
    if decided not in possible:
        raise DataError(
            f"{record.place} has the format {possible[0]}, but {decided_at} has {decided}; "
            f"a file holds one format: split it"
        )
    return record
