"""A value of a JSON record that knows where it stands, so that every fault names its place, value and remedy."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

from spe_dist.errors import DataError

SHOWN_CHARACTERS = 80
MAY_BE_EMPTY = {"ner", "entities", "relations", "entityMentions", "relationMentions"}


class Node:
    """A value inside a record, that knows where it stands. How it is reached is put into words only for a message."""

    __slots__ = ("_key", "_parent", "place", "value")

    def __init__(self, value: Any, place: str, parent: Node | None = None, key: str | int = ""):
        self.value = value
        self.place = place  # file and line (or item of a list)
        self._parent = parent
        self._key = key

    @property
    def path(self) -> str:
        """Fields and positions that lead to the value from its record."""
        if self._parent is None:
            return ""
        before = self._parent.path
        if isinstance(self._key, int):
            return f"{before}[{self._key}]"
        return f"{before}.{self._key}" if before else self._key

    def fail(self, reason: str, remedy: str) -> NoReturn:
        field = f": {self.path}" if self.path else ""
        raise DataError(f"{self.place}{field} is {shown(self.value)}, but {reason}; {remedy}")

    def has(self, key: str) -> bool:
        return isinstance(self.value, dict) and key in self.value

    def child(self, key: str) -> Node:
        """The value of a field that must be there."""
        if not isinstance(self.value, dict):
            self.fail("an object with named fields is expected here", f'write {{"{key}": ..., ...}}')
        if key not in self.value:
            inside = f": {self.path}" if self.path else ""
            raise DataError(
                f"{self.place}{inside} has no field {key!r} (it has {shown(sorted(self.value))}); "
                f"add it{'; where there is nothing, as an empty list' if key in MAY_BE_EMPTY else ''}"
            )
        return Node(self.value[key], self.place, self, key)

    def items(self) -> list[Node]:
        """The values of a list."""
        if not isinstance(self.value, list):
            self.fail(f"a list is expected, not {_kind(self.value)}", "write it in square brackets")
        return [Node(value, self.place, self, index) for index, value in enumerate(self.value)]

    def fields(self) -> dict[str, Any]:
        if not isinstance(self.value, dict):
            self.fail(f"an object with named fields is expected, not {_kind(self.value)}", "see the format's example")
        return self.value

    def string(self) -> str:
        if not isinstance(self.value, str):
            self.fail(f"a string is expected, not {_kind(self.value)}", "write it in double quotes")
        return sys.intern(self.value)

    def boolean(self) -> bool:
        if not isinstance(self.value, bool):
            self.fail(f"true or false is expected, not {_kind(self.value)}", "write it without quotes")
        return self.value

    def integer(self) -> int:
        if isinstance(self.value, bool) or not isinstance(self.value, int):
            self.fail(f"a whole number is expected, not {_kind(self.value)}", "write it without quotes and fraction")
        return self.value

    def label(self) -> str:
        """A type's name: a string that is not empty."""
        if self.string() == "":
            self.fail("a type needs a name", "name the type, or remove the entry")
        return self.label_or_none()

    def label_or_none(self) -> str:
        """A type's name, or the empty string of an entity that is none but an argument."""
        name = self.string()
        if name and not name.strip():
            self.fail("a type needs a name", "name the type, or remove the entry")
        return name

    def identity(self) -> str | int:
        """What names an entity or a document: a string or a whole number."""
        if isinstance(self.value, bool) or not isinstance(self.value, str | int):
            self.fail("an id is a string or a whole number", 'write for example "E1"')
        return self.value

    def probability(self) -> float:
        if isinstance(self.value, bool) or not isinstance(self.value, int | float) or not 0 <= self.value <= 1:
            self.fail("a probability is a number from 0 to 1", "write it so, or remove it")
        return float(self.value)

    def words(self) -> tuple[str, ...]:
        """A list of words."""
        if not isinstance(self.value, list):
            self.fail(f"a list of words is expected, not {_kind(self.value)}", 'write ["one", "string", "a", "word"]')
        for node in self.items() if not all(isinstance(word, str) for word in self.value) else ():
            node.string()
        return tuple(map(sys.intern, self.value))


def positions_by_id(entities: Iterable[Node]) -> dict[str, int]:
    """The position of each entity that has an `id`, by the id as a string. Raises DataError where two have one."""
    positions: dict[str, int] = {}
    for position, entity in enumerate(entities):
        if not entity.has("id"):
            continue
        key = str(entity.child("id").identity())
        if key in positions:
            entity.child("id").fail("another entity of the text has this id", "give each entity an id of its own")
        positions[key] = position
    return positions


def shown(value: Any) -> str:
    """A value as messages show it: JSON, cut where it is long."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=repr)
    except RecursionError:
        text = "a value of too many brackets in brackets"
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 3]}..."


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number" if isinstance(value, int) else "a decimal number")
