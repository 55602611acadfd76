"""Text of Wikipedia in two forms that are handed around: what is markup in them is no text.

`wikiextractor`: articles between `<doc id="0" url="..." title="...">` and `</doc>`, entities as in HTML. `wikitext`
(WikiText-2, WikiText-103): tokenised, headings between equals signs, ` @-@ ` for a hyphen that was split off.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

Markup = Literal["wikiextractor", "wikitext"]

MARKUP = "lines of markup (tags, titles, headings)"
UNKNOWN_MARKS = "words that the text has replaced by <unk>, kept"
OTHER_MARKUP = "sentences that look like markup of another kind (HTML, wiki, TeX), kept as text"

_DOCUMENT = re.compile(r'<doc id="[^"]*"[^>]*>\s*$')
_TITLE = re.compile(r'\btitle="([^"]*)"')
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_HEADING = re.compile(r"(?:= )+[^=].* =$")
_MARK = re.compile(r" @([-,.])@ ")
_OTHER = re.compile(
    r"</?(?!unk>)[A-Za-z][A-Za-z0-9]*(?:\s[^<>]*)?/?>|&(?:[a-z]{2,8}|#\d{1,6}|#x[0-9a-f]{1,5});|\[\[[^\[\]]+\]\]|\{\{[^{}]+\}\}"
    r"|\\[a-z]{3,}\{"
)
_WIKITEXT = re.compile(r" @[-,.]@ |<unk>")


def recognise_markup(lines: Iterable[str]) -> Markup | None:
    """The form that the first lines of a text have; None for plain text."""
    texts = [line.strip() for line in lines]
    first = next((text for text in texts if text), "")
    if _DOCUMENT.match(first):
        return "wikiextractor"
    return "wikitext" if _HEADING.match(first) and any(map(_WIKITEXT.search, texts)) else None


def markup_remover(form: Markup, skipped: Counter[str], noticed: Counter[str]) -> Callable[[str], str | None]:
    """What gives the text of each line in turn, None for a line that is markup. Both are counted."""
    title: str | None = None

    def of_wikiextractor(line: str) -> str | None:
        nonlocal title
        is_title, title = title is not None and html.unescape(line) == title, None
        if _DOCUMENT.match(line):
            found = _TITLE.search(line)
            title = html.unescape(found[1]) if found else None
        elif not is_title and line != "</doc>":
            return html.unescape(_TAG.sub("", line)).strip() if "<" in line or "&" in line else line
        skipped[MARKUP] += 1
        return None

    def of_wikitext(line: str) -> str | None:
        if _HEADING.match(line):
            skipped[MARKUP] += 1
            return None
        noticed[UNKNOWN_MARKS] += line.count("<unk>")
        return _MARK.sub(r"\1", line) if "@" in line else line

    return of_wikiextractor if form == "wikiextractor" else of_wikitext


def looks_like_markup(text: str) -> bool:
    """Whether a text has tags, entities, links or commands of a markup that nothing here takes out.

    `<unk>` is none: it stands for a word (`UNKNOWN_MARKS`).
    """
    if "<" not in text and "&" not in text and "[[" not in text and "{" not in text:
        return False
    return _OTHER.search(text) is not None


def without_markup(form: Markup, lines: Sequence[str]) -> list[str]:
    """The lines of a sample; what is markup becomes a blank line."""
    remove = markup_remover(form, Counter(), Counter())
    return [remove(line.strip()) or "" for line in lines]
