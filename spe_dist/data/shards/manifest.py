"""`manifest.json`: what a folder of shards holds, so that everything read can be checked against it.

It lies beside the shards and is written last: a folder without it is no corpus. Sentence ids number the sentences of
the split `train` from 0 in file order; those of `held_out` follow.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from spe_dist.data.shards.checks import REMEDY, SPLITS, Content
from spe_dist.errors import DataError
from spe_dist.utils.reading.json_file import parse_json, shown

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 1 << 30  # some seven million blocks
TOKENIZER_FOLDER = "tokenizer"


@dataclass(frozen=True)
class BlockEntry:
    """One member of a shard: where its bytes are and what they hold."""

    member: str
    offset: int  # bytes: where the member's data starts in the tar
    bytes: int
    crc32: int
    sentences: int
    words: int
    pieces: int


@dataclass(frozen=True)
class ShardEntry:
    """One tar file."""

    name: str
    sha256: str
    bytes: int
    blocks: tuple[BlockEntry, ...]

    @property
    def sentences(self) -> int:
        return sum(block.sentences for block in self.blocks)

    @property
    def words(self) -> int:
        return sum(block.words for block in self.blocks)

    @property
    def pieces(self) -> int:
        return sum(block.pieces for block in self.blocks)


@dataclass(frozen=True)
class TokenizerEntry:
    """The tokenizer whose files lie in `tokenizer/` beside the manifest."""

    kind: str  # "wordpiece"
    name: str  # where it came from: a name, the last part of a path, or "trained"
    do_lower_case: bool
    files: Mapping[str, str]  # file name -> SHA-256


@dataclass(frozen=True)
class Manifest:
    """Everything about a folder of shards except the sentences."""

    tokenizer: TokenizerEntry
    vocabulary_size: int
    vocabulary_sha256: str
    cls_id: int
    sep_id: int
    mask_id: int
    pad_id: int
    unk_id: int
    max_pieces: int  # longest sentence with [CLS] and [SEP]
    splits: Mapping[str, tuple[ShardEntry, ...]]
    skipped: Mapping[str, int] = field(default_factory=dict)  # reason -> sentences (or lines) left out
    noticed: Mapping[str, int] = field(default_factory=dict)  # what was kept but is worth knowing, by kind
    source: Mapping[str, Any] = field(default_factory=dict)  # inputs and settings of the build
    format_version: int = FORMAT_VERSION

    def shards(self, split: str) -> tuple[ShardEntry, ...]:
        if split not in self.splits:
            raise DataError(f"split={split!r} does not exist in these shards; choose one of {sorted(self.splits)}")
        return self.splits[split]

    def n_sentences(self, split: str) -> int:
        return sum(shard.sentences for shard in self.shards(split))

    def first_sentence_id(self, split: str) -> int:
        """Id of the split's first sentence: splits are numbered one behind the other, train first."""
        before = SPLITS[: SPLITS.index(split)] if split in SPLITS else ()
        return sum(self.n_sentences(name) for name in before)

    def hash(self) -> str:
        """SHA-256 over what training depends on: the sentences, their cut into blocks, the vocabulary."""
        content = {
            "format_version": self.format_version,
            "vocabulary_size": self.vocabulary_size,
            "vocabulary_sha256": self.vocabulary_sha256,
            "special_ids": [self.cls_id, self.sep_id, self.mask_id, self.pad_id, self.unk_id],
            "max_pieces": self.max_pieces,
            "splits": {
                split: [[shard.sha256, [block.sentences for block in shard.blocks]] for shard in shards]
                for split, shards in self.splits.items()
            },
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        """JSON text with one line for each block."""
        content = {f.name: getattr(self, f.name) for f in fields(self)}
        content["tokenizer"] = asdict(self.tokenizer)
        lines: dict[str, str] = {}
        content["splits"] = {name: [_marked(shard, lines) for shard in shards] for name, shards in self.splits.items()}
        text = json.dumps(content, indent=1, ensure_ascii=False)
        return "\n".join(_restore(line, lines) for line in text.split("\n")) + "\n"

    @classmethod
    def load(cls, path: str | Path) -> Manifest:
        """Read a manifest from its file or its folder.

        Raises:
            DataError: it is missing or no manifest.
        """
        file = Path(path) / MANIFEST_NAME if Path(path).is_dir() else Path(path)
        return cls.parse(_read(file), str(file))

    @classmethod
    def parse(cls, text: str | bytes, where: str = "the manifest") -> Manifest:
        """A manifest from its JSON text; `where` it is from goes into messages.

        Raises:
            DataError: it is none, or a value in it cannot be right.
        """
        try:
            content = parse_json(text, "its content", REMEDY, max_bytes=MAX_MANIFEST_BYTES)
        except DataError as error:
            raise DataError(f"{where} is no manifest of shards: {error}") from None
        version = content.get("format_version") if isinstance(content, dict) else None
        if version is None:
            raise DataError(f"{where} is no manifest of shards; {REMEDY}")
        if type(version) is not int or version != FORMAT_VERSION:
            raise DataError(
                f"{where} has format_version={shown(version)}, this program reads {FORMAT_VERSION}; make the shards "
                "again"
            )
        Content(where).check(content)
        content["tokenizer"] = TokenizerEntry(**content["tokenizer"])
        content["splits"] = {
            name: tuple(
                ShardEntry(**{**shard, "blocks": tuple(BlockEntry(**block) for block in shard["blocks"])})
                for shard in shards
            )
            for name, shards in content["splits"].items()
        }
        return cls(**content)


def _marked(shard: ShardEntry, lines: dict[str, str]) -> dict[str, Any]:
    """The shard as JSON content with a mark for each block; `lines` gains what each mark stands for."""
    content = asdict(shard) | {"blocks": [f"@{shard.name} {block.member}@" for block in shard.blocks]}
    lines.update({json.dumps(f"@{shard.name} {b.member}@"): json.dumps(asdict(b)) for b in shard.blocks})
    return content


def _restore(line: str, lines: Mapping[str, str]) -> str:
    mark = line.strip().rstrip(",")
    return line.replace(mark, lines[mark]) if mark in lines else line


def _read(file: Path) -> bytes:
    try:
        with open(file, "rb") as opened:
            return opened.read(MAX_MANIFEST_BYTES + 1)
    except FileNotFoundError as error:
        raise DataError(
            f"{file} does not exist: this is no finished folder of shards; make them with spe shards make "
            "(a run that was interrupted continues where it stopped)"
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{file} cannot be read: {reason}; check the name and its permissions") from error
