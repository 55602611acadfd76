"""Names of documents as names of files: what two paths of one document have in common."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile

MOST_NAME_BYTES = 200
_TEXT_SUFFIX = re.compile(r"(\.(txt|text|tok|json|jsonl|ndjson))?(\.(gz|xz|zst|bz2))?$")


def file_names(keys: Sequence[str]) -> list[str]:
    """A file name without an ending for each document, from its key: unlike all others, and inside the folder.

    A key may be the path of a file: what all documents have in common of it is left out.
    """
    paths = [_parts(key) for key in keys]
    folders = zip(*(parts[:-1] for parts in paths), strict=False)
    common = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, folders))
    width = len(str(len(keys)))
    names, taken = [], set[str]()
    last: dict[str, int] = {}  # number of the last document of each name
    for number, parts in enumerate(paths, 1):
        name = "/".join(parts[common:]) or f"{number:0{width}}"
        free, further = name, last.get(name, 1)
        while free.casefold() in taken:
            further += 1
            free = f"{name}-{further}"
        taken.add(free.casefold())
        last[name] = further
        names.append(free)
    return names


def _parts(key: str) -> list[str]:
    parts = [part for part in re.split(r"[/\\]+", key) if part not in ("", ".", "..")]
    if parts:
        parts[-1] = _TEXT_SUFFIX.sub("", parts[-1]) or parts[-1]
    return [_file_name(part) for part in parts]


def _file_name(part: str) -> str:
    """A part of a path that every file system takes and that is not hidden."""
    plain = re.sub(r"[^\w.\- ]|^\.|[. ]$", "_", part)
    return plain.encode("utf-8")[:MOST_NAME_BYTES].decode("utf-8", "ignore")
