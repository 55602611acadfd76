"""Numbers in sentences that people read."""

from __future__ import annotations


def how_many(count: int, noun: str, plural: str | None = None) -> str:
    """The count with its noun: "1 sentence", "1,861 sentences". `plural`: of a noun that takes more than an s."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"
