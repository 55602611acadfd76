"""YAML into dataclasses, strictly: every key is known, stands once and has the type that it is declared with."""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import yaml

from spe_dist.errors import ConfigError

KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def nearest(name: Any, known: Iterable[Any]) -> str:
    """The end of a message: the known word most like `name`, else all of them."""
    known = list(map(str, known))
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known) or 'none'}"


class StrictLoader(yaml.SafeLoader):
    """YAML in which a key that stands twice in a mapping is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def fit(value: Any, wanted: Any, place: str) -> Any:
    """`value` of a document as the type `wanted`: a dataclass, a mapping or tuple of such, or a scalar."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if dataclasses.is_dataclass(wanted):
        return _fit_dataclass(value, wanted, place)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        mapping = _mapping(value, place)
        plain = arguments[1] is Any
        for key in mapping:
            if not plain and not KEY.fullmatch(key):
                raise ConfigError(
                    f"{place}: {key!r} names a folder; use letters, digits, _ - and . (label it by `name`)"
                )
        return {key: inner if plain else fit(inner, arguments[1], f"{place}: {key}") for key, inner in mapping.items()}
    if origin is tuple:
        parts = value if isinstance(value, list) else [value]
        return tuple(fit(part, arguments[0], place) for part in parts)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{place}: {value!r}{nearest(str(value), arguments)}")
        return value
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, wanted) or (wanted is not bool and isinstance(value, bool)):
        names = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
        raise ConfigError(f"{place}: {value!r} is not {names[wanted]}")
    return value


def _mapping(value: Any, place: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{place} must hold `key: value` lines, not {value!r}")
    return {str(key): inner for key, inner in value.items()}


def _fit_dataclass(value: Any, wanted: Any, place: str) -> Any:
    mapping = _mapping(value, place)
    hints = typing.get_type_hints(wanted)
    fields = {f.name: f for f in dataclasses.fields(wanted)}
    for key in mapping:
        if key not in fields:
            raise ConfigError(f"{place}: unknown key {key!r}{nearest(key, fields)}")
    for name, described in fields.items():
        optional = described.default is not dataclasses.MISSING or described.default_factory is not dataclasses.MISSING
        if name not in mapping and not optional:
            raise ConfigError(f"{place}: {name!r} is missing")
    return wanted(**{name: fit(inner, hints[name], f"{place}: {name}") for name, inner in mapping.items()})
