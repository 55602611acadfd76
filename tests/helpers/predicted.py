"""What `spe predict` prints, read back and checked; a text that the tests predict."""

from __future__ import annotations

import json

TEXT = (
    "John Smith works for IBM.\nHe \U0001f600 likes Boston and Paris.\r\n\r\nA second document, with Ann Lee in it.\n"
)


def parse_records(out: str) -> list[dict]:
    return [json.loads(line) for line in out.split("\n")[:-1]]


def check_places(record: dict, text: str) -> None:
    """Offsets of the record, its words and its entities count characters of `text`."""
    assert text[record["start"] : record["end"]] == record["text"]
    assert [text[a:b] for a, b in record["word_offsets"]] == record["words"]
    for entity in record["entities"]:
        assert text[entity["start"] : entity["end"]] == entity["text"]
