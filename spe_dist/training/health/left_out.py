"""What is left out of training: sentences that the user names, and steps that a roll-back passes over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spe_dist.errors import ConfigError
from spe_dist.utils.wording import how_many

STATE = "left_out"  # its name in a checkpoint's state


@dataclass
class LeftOut:
    """Sentences by id, and steps as metrics.jsonl counts them. All ranks hold the same.

    `replaced`: how often another sentence has taken the place of one that is left out.
    """

    sentences: tuple[int, ...] = ()  # ascending
    steps: set[int] = field(default_factory=set)
    replaced: int = 0
    rollbacks: int = 0  # of this start

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it: nothing where nothing is left out."""
        if not self.sentences and not self.steps:
            return {}
        return {STATE: {"sentences": list(self.sentences), "steps": sorted(self.steps), "replaced": self.replaced}}

    def summary(self) -> list[str]:
        """A line for the end of a run, or none."""
        parts = []
        if self.sentences:
            places = f"others took their place {self.replaced:,} times"
            parts.append(f"{how_many(len(self.sentences), 'sentence')} ({places})")
        if self.steps:
            parts.append(f"{how_many(len(self.steps), 'step')} after roll-backs ({listed(sorted(self.steps))})")
        return [f"left out of training: {'; '.join(parts)}"] if parts else []


def replaced_in(state: Mapping[str, Any]) -> int:
    """How often sentences had been replaced when a checkpoint was written, by its state."""
    return int(state[STATE]["replaced"]) if STATE in state else 0


def read_sentence_ids(path: Path, ids: range) -> tuple[int, ...]:
    """The ids in a file, one a line, ascending and each once; empty lines count for nothing.

    Raises:
        ConfigError: the file cannot be read; a line is no id, or none of `ids`; no sentence would be left.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"skip_sentences={path} cannot be read ({_reason(error)}); give a file of ids") from None
    found = set()
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text:
            continue
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise ConfigError(
                f"skip_sentences={path}, line {number}: {text[:40]!r} is not a sentence id; give one a line"
            )
        if int(text) not in ids:
            raise ConfigError(
                f"skip_sentences={path}, line {number}: there is no training sentence {text}; ids go from {ids[0]} to "
                f"{ids[-1]}"
            )
        found.add(int(text))
    if len(found) == len(ids):
        raise ConfigError(f"skip_sentences={path} leaves no sentence to train on; name fewer")
    return tuple(sorted(found))


def listed(steps: Iterable[int]) -> str:
    """Steps in words."""
    return ", ".join(map(str, steps))


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else "it is not text"
