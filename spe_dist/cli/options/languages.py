"""The option that says in which language text is."""

from __future__ import annotations

import argparse
from collections.abc import Callable

LANGUAGE_HELP = (
    "language of the text, such as en, de or zh, for its words and sentence ends; auto: by the script of each "
    "paragraph (Latin letters: en)"
)


def add_language(add: Callable[..., argparse.Action], default: str | None, note: str = "") -> argparse.Action:
    """Add `--language`; `note` stands behind its help."""
    return add("--language", default=default, metavar="CODE", help=LANGUAGE_HELP + note)
