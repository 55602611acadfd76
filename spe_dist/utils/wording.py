"""Numbers, suggestions and URLs in sentences that people read."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

HIDDEN = "***"  # what may be secret


def how_many(count: int, noun: str, plural: str | None = None) -> str:
    """The count with its noun: "1 sentence", "1,861 sentences". `plural`: of a noun that takes more than an s."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def counted(reasons: Mapping[str, int]) -> list[str]:
    """Reasons with how often each occurred, "blank lines: 1": right in English for one as for many."""
    return [f"{reason}: {count:,}" for reason, count in reasons.items() if count]


def rate(count: int, seconds: float) -> str:
    """How many a second: "1,861", "214"; below 10 with one decimal, "0.9"."""
    per_second = count / max(seconds, 1e-9)
    return f"{per_second:,.0f}" if per_second >= 10 else f"{per_second:.1f}"


def nearest(name: object, known: Iterable[object]) -> str:
    """The end of an error message: asks for the known word most like `name`; empty where none is like it."""
    near = difflib.get_close_matches(str(name)[:100], list(map(str, known)), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def nearest_or_all(name: object, known: Iterable[object]) -> str:
    """As `nearest`, but lists all known words where none is like `name`."""
    words = list(map(str, known))
    return nearest(name, words) or f"; known: {', '.join(words) or 'none'}"


def short(value: object, characters: int = 80) -> str:
    """A value as messages show it: one line, cut where it is long."""
    text = repr(value)
    return text if len(text) <= characters else f"{text[: characters - 3]}..."


def one_line(error: object, characters: int = 200) -> str:
    """The words of another library's error as a part of one line, cut where they are long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= characters else f"{text[: characters - 3]}..."


def shown_url(url: str) -> str:
    """A URL without what may be secret in it: user, password, the values of a query (tokens, signatures).

    Paths, and commands behind `pipe:`, stay as they are.
    """
    scheme, mark, rest = url.partition("://")
    if not mark or url.startswith("pipe:"):
        return url
    place, question, query = rest.partition("?")
    host, slash, path = place.partition("/")
    if "@" in host:
        host = f"{HIDDEN}@{host.rpartition('@')[2]}"
    if question and "=" not in query and scheme in ("http", "https"):
        query = HIDDEN
    return f"{scheme}{mark}{host}{slash}{path}{question}{re.sub(r'=[^&]*', f'={HIDDEN}', query)}"


def drawn(text: str) -> str:
    """A name as matplotlib draws it: a dollar sign begins no formula, which could be one that it cannot read."""
    return text.replace("$", r"\$")
