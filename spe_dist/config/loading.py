"""Settings from presets, YAML files and the command line, strictly.

Later sources win: defaults, preset, YAML file, command line. A YAML file may be nested by section or flat. An unknown
key, a value of the wrong type and a misspelt choice are errors that name the nearest known word.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from spe_dist.config.presets import PRESETS
from spe_dist.config.pretraining import Config
from spe_dist.config.yaml_file import read_yaml
from spe_dist.errors import ConfigError
from spe_dist.utils.wording import HIDDEN, nearest, short, shown_url

_WHOLE = re.compile(r"[+-]?[0-9_]{1,40}")
COMMAND = "pipe:"  # what begins so is given to a shell (`spe_dist.data.shards.transport`)


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One setting: its section, name, type, default, help text, and whether `--help` shows it."""

    section: str
    name: str
    type: Any
    default: Any
    help: str
    common: bool


def leaves(config_class: type = Config) -> dict[str, Leaf]:
    """All settings of a sectioned config class by leaf name; in a section its own before those that it inherits."""
    found: dict[str, Leaf] = {}
    for section_name, section_type in typing.get_type_hints(config_class).items():
        hints = typing.get_type_hints(section_type)
        own = list(inspect.get_annotations(section_type))
        for f in sorted(dataclasses.fields(section_type), key=lambda f: (*own, f.name).index(f.name)):
            assert f.name not in found, f"leaf {f.name} stands in two sections"
            help, common = f.metadata["help"], f.metadata["common"]
            found[f.name] = Leaf(section_name, f.name, hints[f.name], f.default, help, common)
    return found


def resolve(overrides: Iterable[Mapping[str, Any]], config_class: type = Config) -> Any:
    """A config from leaf-name mappings, later ones winning. Values are converted and checked by type."""
    known = leaves(config_class)
    values: dict[str, dict[str, Any]] = {section: {} for section in typing.get_type_hints(config_class)}
    for mapping in overrides:
        for name, value in mapping.items():
            if name not in known:
                raise ConfigError(f"unknown setting {short(name)}{nearest(name, known)}")
            values[known[name].section][name] = convert(known[name], value)
    hints = typing.get_type_hints(config_class)
    return config_class(**{section: hints[section](**chosen) for section, chosen in values.items()})


NO_RESULT = ("output", "resume", "push", "push_public", "verbose")  # settings that change nothing of a run's result


def differences(saved: Any, config: Any) -> dict[str, tuple[Any, Any]]:
    """Settings of two configs of one class that differ: (saved, this run's), but for those that change no result."""
    both = zip(vars(saved).values(), vars(config).values(), strict=True)
    pairs = {name: (value, getattr(mine, name)) for old, mine in both for name, value in vars(old).items()}
    pairs = {name: (_shown(a), _shown(b)) for name, (a, b) in pairs.items() if name not in NO_RESULT}
    return {name: (a, b) for name, (a, b) in pairs.items() if a != b}


def _shown(value: Any) -> Any:
    """A setting without what may be secret in it: files of a run are passed on."""
    return shown_url(value) if isinstance(value, str) else value


def describe_differences(changed: Mapping[str, tuple[Any, Any]]) -> str:
    """Differences in words, for one line."""
    return ", ".join(f"{name}={mine} (was {value})" for name, (value, mine) in changed.items())


def load_yaml(path: str | Path, config_class: type = Config) -> dict[str, Any]:
    """Leaf-name mapping of a YAML file, nested by section or flat. Raises ConfigError."""
    document = read_yaml(path, "settings file", "check --config")
    return flatten(document or {}, str(path), config_class)


def flatten(document: Any, source: str, config_class: type = Config) -> dict[str, Any]:
    """Leaf-name mapping of a nested or flat document; unknown sections and keys are errors."""
    if not isinstance(document, dict):
        raise ConfigError(f"{source} must hold a mapping of settings, not a {type(document).__name__}")
    sections = typing.get_type_hints(config_class)
    known = leaves(config_class)
    flat: dict[str, Any] = {}
    for key, value in document.items():
        inside = value.items() if key in sections and isinstance(value, dict) else [(key, value)]
        for name, leaf_value in inside:
            if name not in known:
                raise ConfigError(f"{source}: unknown setting {short(name)}{nearest(str(name), [*known, *sections])}")
            if key in sections and isinstance(value, dict) and known[name].section != key:
                raise ConfigError(f"{source}: {name!r} belongs to section {known[name].section!r}, not {key!r}")
            if name in flat:
                raise ConfigError(f"{source}: {name!r} is given twice")
            flat[name] = leaf_value
    return flat


def to_yaml(config: Any) -> str:
    """The whole config as YAML, nested by section; `load_yaml` reads it back to an equal config.

    Secrets in URLs are left out (`shown_url`).
    """
    document = {
        section: {k: list(v) if isinstance(v, tuple) else _shown(v) for k, v in vars(values).items()}
        for section, values in vars(config).items()
    }
    return yaml.safe_dump(document, sort_keys=False)


def convert(leaf: Leaf, value: Any) -> Any:
    """`value` as the leaf's type. Text is parsed, as it comes from a command line. Raises ConfigError."""
    allowed = [leaf.type]
    if isinstance(leaf.type, types.UnionType):
        allowed = [t for t in typing.get_args(leaf.type) if t is not types.NoneType]
        if value is None or (isinstance(value, str) and value.lower() in ("none", "null", "")):
            return None
    target = allowed[0]
    if typing.get_origin(target) is typing.Literal:
        choices = typing.get_args(target)
        if value not in choices:
            raise ConfigError(
                f"{leaf.name}={short(value)}: choose one of {', '.join(choices)}{nearest(str(value), choices)}"
            )
        return value
    if typing.get_origin(target) is tuple:
        parts = value.split(",") if isinstance(value, str) else value
        element = typing.get_args(target)[0]
        if not isinstance(parts, list | tuple):
            kind = "whole numbers" if element is int else "words"
            raise ConfigError(f"{leaf.name}={short(value)}: give {kind} separated by commas")
        if isinstance(value, str):
            parts = [part.strip() for part in parts]
        return tuple(_scalar(leaf.name, element, part) for part in parts if part != "" or element is not str)
    return _scalar(leaf.name, target, value)


def _scalar(name: str, target: type, value: Any) -> Any:
    problem = ConfigError(f"{name}={short(value)}: expected {_TYPE_NAMES[target]}")
    if target is bool:
        if isinstance(value, str) and value.lower() in ("true", "false", "yes", "no", "on", "off", "1", "0"):
            return value.lower() in ("true", "yes", "on", "1")
        if not isinstance(value, bool):
            raise problem
        return value
    if isinstance(value, bool) or value is None:
        raise problem
    if target is str:
        if not isinstance(value, str | int | float):
            raise problem
        return str(value)
    try:
        if target is int and isinstance(value, str) and _WHOLE.fullmatch(value):
            return int(value)  # exactly: a float has 53 bits
        number = float(value.replace("_", "")) if isinstance(value, str) else value
        if target is int and number != int(number):
            raise problem
        return target(number)
    except (TypeError, ValueError, OverflowError):
        raise problem from None


_TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def load_config(
    *, preset: str | None, yaml_file: str | None, given: Mapping[str, Any], config_class: type = Config
) -> Any:
    """The checked config of a run: defaults, then preset, then YAML file, then what the command line gave.

    Raises:
        ConfigError: for an unknown preset or setting, a wrong value, and a contradiction.
    """
    presets = PRESETS[config_class]
    if preset is not None and preset not in presets:
        raise ConfigError(f"unknown preset {preset!r}; choose one of {', '.join(presets)}{nearest(preset, presets)}")
    from_file = load_yaml(yaml_file, config_class) if yaml_file else {}
    for name, value in from_file.items():
        if isinstance(value, str) and value.lstrip().startswith(COMMAND) and name not in given:
            raise ConfigError(
                f"{name}={short(value)} of {yaml_file} would run a command, which no file may ask for; give it on the "
                f"command line, as --{name}"
            )
        if isinstance(value, str) and HIDDEN in value and shown_url(value) == value and name not in given:
            raise ConfigError(
                f"{name}={short(value)} of {yaml_file} lacks what was secret in it; give it whole on the command "
                f"line, as --{name}"
            )
    config = resolve([presets[preset] if preset else {}, from_file, given], config_class)
    config.validate()
    return config
