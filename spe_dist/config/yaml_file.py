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
from spe_dist.utils.wording import nearest_or_all

KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class StrictLoader(yaml.SafeLoader):
    """YAML in which a key that stands twice in a mapping is an error."""

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
        ConfigError: where the file is missing, unreadable, not YAML, or has a key that stands twice in a mapping.
    """
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), StrictLoader)
    except FileNotFoundError:
        raise ConfigError(f"{what} {path} does not exist; {remedy}") from None
    except OSError as error:
        raise ConfigError(f"{what} {path} cannot be read: {error.strerror}; {remedy}") from None
    except yaml.MarkedYAMLError as error:
        place = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{what} {path}{place}: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} {path} is not valid YAML: {' '.join(str(error).split())}") from None


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
            raise ConfigError(f"{place}: {value!r}{nearest_or_all(value, arguments)}")
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
            raise ConfigError(f"{place}: unknown key {key!r}{nearest_or_all(key, fields)}")
    for name, described in fields.items():
        optional = described.default is not dataclasses.MISSING or described.default_factory is not dataclasses.MISSING
        if name not in mapping and not optional:
            raise ConfigError(f"{place}: {name!r} is missing")
    return wanted(**{name: fit(inner, hints[name], f"{place}: {name}") for name, inner in mapping.items()})
