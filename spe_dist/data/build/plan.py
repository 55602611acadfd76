"""What a build was asked for, and whether what lies in the output folder belongs to it.

The scratch folder `.build` in the output holds the plan, so that an interrupted build continues only with the same
inputs and settings; a finished build's manifest holds the same.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spe_dist.data.shards.manifest import MANIFEST_NAME, SPLITS, TOKENIZER_FOLDER, Manifest
from spe_dist.data.text.documents import FormatChoice, UnitChoice
from spe_dist.data.text.words import WordsChoice
from spe_dist.errors import ConfigError, DataError
from spe_dist.utils.files import remove_unfinished, write_atomically

SCRATCH_FOLDER = ".build"
PLAN_NAME = "plan.json"
MIN_MAX_PIECES = 5  # [CLS], three words, [SEP]
MOST_MAX_PIECES = 32_767  # what the int16 positions of first pieces in a shard reach


@dataclass(frozen=True)
class BuildSettings:
    """Everything but the inputs and the vocabulary that the shards' bytes depend on."""

    unit: UnitChoice = "auto"
    words: WordsChoice = "auto"
    format: FormatChoice = "auto"
    text_field: str = "text"
    train_vocab: int | None = None
    do_lower_case: bool | None = None
    seed: int = 0
    held_out: float = 0.005
    block_sentences: int = 1_000
    shard_sentences: int = 100_000
    max_pieces: int = 128

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise ConfigError(f"held_out={self.held_out} is no share of the sentences; choose 0 <= held_out < 1")
        if self.max_pieces < MIN_MAX_PIECES:
            raise ConfigError(f"max_pieces={self.max_pieces} leaves no room for three words; choose 128, say")
        if self.max_pieces > MOST_MAX_PIECES:
            raise ConfigError(f"max_pieces={self.max_pieces}: shards hold sentences of at most {MOST_MAX_PIECES:,}")
        if self.block_sentences < 1 or self.shard_sentences < self.block_sentences:
            raise ConfigError(
                f"block_sentences={self.block_sentences}, shard_sentences={self.shard_sentences}: a shard holds whole "
                "blocks, of at least one sentence; choose shard_sentences >= block_sentences >= 1"
            )


@dataclass(frozen=True)
class Plan:
    """The whole request, as JSON content: what must be equal for a build to be continued."""

    content: Mapping[str, Any]

    @classmethod
    def make(cls, files: Sequence[Path], settings: BuildSettings, vocabulary: dict[str, Any] | None) -> Plan:
        """`vocabulary`: what identifies a given tokenizer; None where one is trained."""
        inputs = [{"name": file.name, "bytes": file.stat().st_size} for file in files]
        return cls({"inputs": inputs, "settings": asdict(settings), "vocabulary": vocabulary})

    def difference(self, other: Mapping[str, Any]) -> str | None:
        """In words what another request has otherwise; None if nothing."""
        changed = []
        mine, theirs = self.content["settings"], other.get("settings", {})
        for key in mine:
            if key not in theirs or mine[key] != theirs[key]:
                changed.append(f"{key} was {theirs.get(key)!r} and is {mine[key]!r}")
        if self.content["vocabulary"] != other.get("vocabulary"):
            changed.append("the tokenizer is another")
        if self.content["inputs"] != other.get("inputs"):
            changed.append("the input files are others or have other sizes")
        return "; ".join(changed) or None


def finished_build(output: Path, plan: Plan, files: Sequence[Path]) -> Manifest | None:
    """The manifest of a build that is done; DataError where it answers another request."""
    path = output / MANIFEST_NAME
    if not path.is_file():
        return None
    manifest = Manifest.load(path)
    difference = plan.difference(manifest.source.get("request", {}))
    if difference is None and any(file.stat().st_mtime > path.stat().st_mtime for file in files):
        difference = "an input file has changed since"
    if difference:
        raise DataError(f"{output} holds finished shards of another request ({difference}); {_REMEDY}")
    return manifest


def begin_or_continue(output: Path, plan: Plan, files: Sequence[Path]) -> tuple[Path, bool]:
    """(scratch folder, whether an interrupted build is continued). DataError where that build was another."""
    scratch = output / SCRATCH_FOLDER
    content = {**plan.content, "mtimes_ns": [file.stat().st_mtime_ns for file in files]}
    path = scratch / PLAN_NAME
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        difference = plan.difference(found)
        if difference is None and found.get("mtimes_ns") != content["mtimes_ns"]:
            difference = "an input file has changed since"
        if difference:
            raise DataError(f"{output} holds an unfinished build of another request ({difference}); {_REMEDY}")
        for folder in (output, scratch / "parts", scratch / "shards"):
            remove_unfinished(folder)
        return scratch, True
    leftover = [path.name for path in _own_files(output) if path != scratch]
    if leftover:
        raise DataError(f"{output} holds {leftover[0]} but no {MANIFEST_NAME}; {_REMEDY}")
    (scratch / "parts").mkdir(parents=True, exist_ok=True)
    (scratch / "shards").mkdir(exist_ok=True)
    write_atomically(path, json.dumps(content))
    return scratch, False


_REMEDY = "choose another output folder, or overwrite it (--overwrite)"


def remove_build(output: Path) -> None:
    """Remove what builds write, the manifest first; other files stay."""
    (output / MANIFEST_NAME).unlink(missing_ok=True)
    remove_unfinished(output)
    for path in _own_files(output):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _own_files(output: Path) -> list[Path]:
    shards = [path for split in SPLITS for path in sorted(output.glob(f"{split}-*.tar*"))]
    folders = [output / SCRATCH_FOLDER, output / TOKENIZER_FOLDER]
    return [*shards, *(folder for folder in folders if folder.exists())]
