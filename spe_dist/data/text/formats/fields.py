"""The text of a record: under a key, or deeper in it by a path such as `body.paragraphs`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

PARAGRAPH_BREAK = "\n\n"
_SHOWN_FIELDS = 8


def text_at(record: Any, path: str) -> str | None:
    """The text that a record has under a key or a path of keys joined by full stops; None where there is none.

    A list on the way, of objects or of strings, stands for all its items: they are the paragraphs of one text. A key
    that has full stops itself comes first.
    """
    texts = _texts(value_at(record, path))
    return None if texts is None else PARAGRAPH_BREAK.join(texts)


def value_at(record: Any, path: str) -> Any:
    """What stands at a path: the values of all items where lists of objects are on the way; None for nothing."""
    if isinstance(record, list):
        found = [value for value in (value_at(item, path) for item in record) if value is not None]
        return found or None
    if not isinstance(record, dict):
        return None
    if path in record:
        return record[path]
    key, dot, rest = path.partition(".")
    return value_at(record[key], rest) if dot and key in record else None


def _texts(value: Any) -> list[str] | None:
    """The strings of a value, those of lists in lists in order; None where anything else is in it."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        return None
    texts: list[str] = []
    for item in value:
        inner = _texts(item)
        if inner is None:
            return None
        texts += inner
    return texts


def no_text_message(record: Any, path: str) -> str:
    """What a record has in place of text, with the fields that could be meant."""
    if not isinstance(record, dict):
        return f"no text under {path!r}: the record is not an object"
    names = [name for name, _ in zip(_names(record), range(_SHOWN_FIELDS + 1), strict=False)]
    shown = ", ".join(map(repr, names[:_SHOWN_FIELDS])) + (", ..." if len(names) > _SHOWN_FIELDS else "")
    return f"no text under {path!r}; its fields: {shown or 'none'}; --text_field names one"


def _names(record: dict[str, Any], before: str = "") -> Iterator[str]:
    """The paths of a record's fields, those of objects in it in place of theirs."""
    for key, value in record.items():
        inner = value[0] if isinstance(value, list) and value else value
        if isinstance(inner, dict) and before.count(".") < 3:
            yield from _names(inner, f"{before}{key}.")
        else:
            yield f"{before}{key}"
