"""What files of annotations say twice: offsets, and the text that stands there."""

from __future__ import annotations

OTHER_TEXT = "spans whose text in the file is not what stands at their offsets (the offsets are taken)"


def is_same_text(said: str, found: str) -> bool:
    r"""Whether two texts are the same but for white space and "\n" for a line break."""
    return said == found or bare(said) == bare(found)


def bare(text: str) -> str:
    """A text without its white space, as tools change it."""
    return "".join(text.replace("\\n", "\n").split())
