"""The one way in which JSON documents of ours are read: of bounded size and depth, every value one that can be used.

Manifests, `state.json`, `spe_config.json` and all the rest may be cut short, edited, or written by somebody who means
harm. Whatever they hold, reading one gives plain values or one error of one line.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from spe_dist.errors import DataError, SpeError
from spe_dist.utils.reading.files import open_file

MAX_BYTES = 64 << 20
MAX_DEPTH = 64
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SHOWN_CHARACTERS = 40


def read_json(
    path: str | Path,
    remedy: str,
    error: type[SpeError] = DataError,
    max_bytes: int = MAX_BYTES,
    what: str = "",
    from_pipe: bool = False,
) -> Any:
    """The document of a JSON file.

    Args:
        path: the file.
        remedy: what the message advises.
        error: the class of what is raised.
        max_bytes: size from which the file is refused without being read.
        what: what the message calls the file; its path where nothing is given.
        from_pipe: whether it may be a pipe, as a shell's <(COMMAND): for files that a user names alone.

    Raises:
        FileNotFoundError: there is no such file: only the caller knows what that means.
        SpeError: of the class `error`, in one line: the file cannot be read, or `parse_json` refuses its content.
    """
    where = what or str(path)
    try:
        with open(path, "rb") if from_pipe else open_file(path) as file:
            data = file.read(max_bytes + 1)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as failure:  # ValueError: a zero byte in the name
        reason = getattr(failure, "strerror", None) or failure
        raise error(f"{where} cannot be read: {reason}; {remedy}") from None
    return parse_json(data, where, remedy, error, max_bytes)


def read_object(
    path: str | Path, remedy: str, error: type[SpeError] = DataError, max_bytes: int = MAX_BYTES, what: str = ""
) -> dict[str, Any]:
    """As `read_json`, of a file that must hold an object."""
    document = read_json(path, remedy, error, max_bytes, what)
    if not isinstance(document, dict):
        raise error(f"{what or path} holds {kind_of(document)} where an object is expected; {remedy}")
    return document


def parse_json(
    text: bytes | str, where: str, remedy: str, error: type[SpeError] = DataError, max_bytes: int = MAX_BYTES
) -> Any:
    """The value of a JSON text.

    Raises:
        SpeError: of the class `error`: it is too large, no UTF-8, no JSON, nested too deeply, holds a number beyond the
            range of numbers, a key that stands twice in an object, or half of a character.
    """
    if len(text) > max_bytes:
        raise error(f"{where} is larger than {_size(max_bytes)}; {remedy}")
    try:
        decoded = text if isinstance(text, str) else text.decode("utf-8-sig")
        value = _DECODER.decode(decoded)
        check_depth(value)
        if _SURROGATE.search(decoded):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as failure:
        raise error(f"{where} is not UTF-8 text (byte {failure.start:,}); {remedy}") from None
    except UnicodeEncodeError:
        raise error(f"{where} holds half of a character (a surrogate); {remedy}") from None
    except json.JSONDecodeError as failure:
        place = f"line {failure.lineno}, column {failure.colno}"
        raise error(f"{where} is not valid JSON ({place}: {failure.msg}); {remedy}") from None
    except RecursionError:
        raise error(f"{where} is nested more than {MAX_DEPTH} levels deep; {remedy}") from None
    except ValueError as failure:
        reason = "a number of thousands of digits" if "digits" in str(failure) else failure
        raise error(f"{where} is not valid JSON ({reason}); {remedy}") from None
    return value


def check_depth(value: Any, limit: int = MAX_DEPTH) -> None:
    """Check that lists and mappings in one another go no deeper than `limit`. Raises RecursionError."""
    level: list[Any] = [value] if isinstance(value, dict | list) else []
    for _ in range(limit):
        inner: list[Any] = []
        for container in level:
            children = container.values() if isinstance(container, dict) else container
            inner += [child for child in children if isinstance(child, dict | list)]
        level = inner
        if not level:
            return
    raise RecursionError


def is_number(value: Any, low: float = -math.inf, high: float = math.inf) -> bool:
    """Whether a value of a document is a finite number, no truth value, from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return low <= value <= high and (isinstance(value, int) or math.isfinite(value))


def is_whole(value: Any, low: int = 0, high: int = 2**62) -> bool:
    """Whether a value of a document is a whole number, no truth value, from `low` to `high`."""
    return type(value) is int and low <= value <= high


def is_names(value: Any) -> bool:
    """Whether a value of a document is a list of strings."""
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def kind_of(value: Any) -> str:
    """The kind of a value of a document, in words."""
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def shown(value: Any) -> str:
    """A value as messages show it: JSON in one line, cut where it is long."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."


def _finite(text: str) -> float:
    number = float(text)  # Python reads 1e999 as infinite
    if not math.isfinite(number):
        raise ValueError(f"{text[:_SHOWN_CHARACTERS]} is beyond the range of numbers")
    return number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {shown(twice)} stands twice in one object")
    return found


def _size(count: int) -> str:
    return f"{count >> 20:,} MiB" if count >= 1 << 20 else f"{count:,} bytes"


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_no_constant, object_pairs_hook=_unique)
