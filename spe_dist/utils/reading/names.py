"""Names of files that stand in a document which somebody else may have written, such as a manifest behind a URL.

Such a name is joined to a folder, to a URL, or put into a shell command (`pipe:`). So only letters, digits, `.`, `_`
and `-` are taken, and nothing that a path or an option begins with.
"""

from __future__ import annotations

import re
from typing import Any

MAX_CHARACTERS = 200  # file systems take 255 bytes; what is written aside has a longer name
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*", re.ASCII)
RULE = "names have letters, digits, '_', '-' and '.', begin with a letter, digit or '_', and hold no '..'"


def is_safe_name(name: Any) -> bool:
    """Whether a name means one file of a folder, and nothing else, in a path, in a URL and in a shell command."""
    return isinstance(name, str) and len(name) <= MAX_CHARACTERS and ".." not in name and bool(_NAME.fullmatch(name))
