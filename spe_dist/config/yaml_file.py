"""The one way in which YAML files are read, strictly, and documents as dataclasses.

Every key stands once, is known and has the type that it is declared with. `--config` and experiment files read so.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from spe_dist.errors import ConfigError
from spe_dist.utils.wording import nearest_or_all, one_line, short

KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


MAX_BYTES = 1 << 20
MAX_VALUES = 100_000  # with every *alias written out: a few lines of aliases of aliases can stand for billions
MAX_DEPTH = 40


class StrictLoader(yaml.SafeLoader):
    """YAML in which a key that stands twice in a mapping is an error; so is what unfolds to more than anyone writes."""

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None:
            _check_size(node)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    twice = f"the key {key.value!r} stands twice"
                    raise yaml.constructor.ConstructorError(None, None, twice, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path, what: str, remedy: str) -> Any:
    """The document of a YAML file; None where it is empty.

    Args:
        path: the file.
        what: what an error calls it, such as "settings file".
        remedy: what an error advises where the file cannot be read.

    Raises:
        ConfigError: where the file is missing, unreadable, too large, not YAML, or has a key that stands twice in a
            mapping.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ConfigError(f"{what} {path} has more than {MAX_BYTES >> 10:,} KiB: it is no such file; {remedy}")
        return yaml.load(data.decode("utf-8"), StrictLoader)
    except FileNotFoundError:
        raise ConfigError(f"{what} {path} does not exist; {remedy}") from None
    except OSError as error:
        raise ConfigError(f"{what} {path} cannot be read: {error.strerror}; {remedy}") from None
    except RecursionError:
        raise ConfigError(f"{what} {path} is nested more than {MAX_DEPTH} levels deep; {remedy}") from None
    except yaml.MarkedYAMLError as error:
        place = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{what} {path}{place}: {one_line(error.problem)}") from None
    except ConfigError:
        raise
    except (
        yaml.YAMLError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:  # dates and numbers that are none
        raise ConfigError(f"{what} {path} is not valid YAML: {one_line(error)}") from None


def _check_size(root: yaml.Node) -> None:
    """Check how many values a document stands for, and how deep they lie. Raises YAMLError or RecursionError."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node, depth: int) -> int:
        if id(node) in open_nodes:
            raise yaml.YAMLError("an alias stands inside of what it names")
        if depth > MAX_DEPTH:
            raise RecursionError
        if id(node) not in sizes:
            open_nodes.add(id(node))
            inner = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
            parts = inner if isinstance(node, yaml.CollectionNode) else ()
            sizes[id(node)] = 1 + sum(size(part, depth + 1) for part in parts)
            open_nodes.discard(id(node))
        return sizes[id(node)]

    if size(root, 1) > MAX_VALUES:
        raise yaml.YAMLError(f"with its aliases written out it holds more than {MAX_VALUES:,} values")


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
                    f"{place}: {short(key)} names a folder; use letters, digits, _ - and . (label it by `name`)"
                )
        return {key: inner if plain else fit(inner, arguments[1], f"{place}: {key}") for key, inner in mapping.items()}
    if origin is tuple:
        parts = value if isinstance(value, list) else [value]
        return tuple(fit(part, arguments[0], place) for part in parts)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{place}: {short(value)}{nearest_or_all(value, arguments)}")
        return value
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, wanted) or (wanted is not bool and isinstance(value, bool)):
        names = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
        raise ConfigError(f"{place}: {short(value)} is not {names[wanted]}")
    return value


def _mapping(value: Any, place: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{place} must hold `key: value` lines, not {short(value)}")
    return {str(key): inner for key, inner in value.items()}


def _fit_dataclass(value: Any, wanted: Any, place: str) -> Any:
    mapping = _mapping(value, place)
    hints = typing.get_type_hints(wanted)
    fields = {f.name: f for f in dataclasses.fields(wanted)}
    for key in mapping:
        if key not in fields:
            raise ConfigError(f"{place}: unknown key {short(key)}{nearest_or_all(key, fields)}")
    for name, described in fields.items():
        optional = described.default is not dataclasses.MISSING or described.default_factory is not dataclasses.MISSING
        if name not in mapping and not optional:
            raise ConfigError(f"{place}: {name!r} is missing")
    return wanted(**{name: fit(inner, hints[name], f"{place}: {name}") for name, inner in mapping.items()})
