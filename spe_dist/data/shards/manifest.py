"""`manifest.json`: what a folder of shards holds, so that everything read can be checked against it.

It lies beside the shards and is written last: a folder without it is no corpus. The blocks of the shards stand in an
index file beside it (`index`); in format version 1 they stood in the manifest. Sentence ids number the sentences of the
split `train` from 0 in file order; those of `held_out` follow.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from spe_dist.data.shards.checks import COLUMNS, COUNTED, REMEDY, SPLITS, Content
from spe_dist.data.shards.index import INDEX_NAME, BlockEntry, BlockTable, IndexEntry
from spe_dist.data.text.languages import known_language
from spe_dist.errors import DataError
from spe_dist.utils.files import write_atomically
from spe_dist.utils.reading.files import read_up_to
from spe_dist.utils.reading.json_file import parse_json, shown

FORMAT_VERSION = 2
BLOCKS_IN_MANIFEST = 1  # the format version before there was an index file; still read
MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 1 << 30  # some seven million blocks
TOKENIZER_FOLDER = "tokenizer"


@dataclass(frozen=True)
class ShardEntry:
    """One tar file."""

    name: str
    sha256: str
    bytes: int
    blocks: BlockTable

    @property
    def sentences(self) -> int:
        return self.blocks.total("sentences")

    @property
    def words(self) -> int:
        return self.blocks.total("words")

    @property
    def pieces(self) -> int:
        return self.blocks.total("pieces")

    def to_record(self) -> dict[str, Any]:
        """JSON content that holds all of it, blocks as lists of numbers."""
        return {**self._file(), "blocks": self.blocks.to_lists()}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> ShardEntry:
        """What `to_record` gave."""
        return cls(**{**record, "blocks": BlockTable.from_lists(record["blocks"])})

    def summary(self) -> dict[str, Any]:
        """What the manifest says of a shard whose blocks are in the index."""
        counts = {"sentences": self.sentences, "words": self.words, "pieces": self.pieces}
        return {**self._file(), "blocks": len(self.blocks), **counts}

    def _file(self) -> dict[str, Any]:
        return {"name": self.name, "sha256": self.sha256, "bytes": self.bytes}


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
    index: IndexEntry | None = None  # the file that the blocks are mapped from
    format_version: int = FORMAT_VERSION

    @property
    def language(self) -> str:
        """That of the text, where it was given when the shards were made, else "auto"."""
        return known_language(self.source.get("language"))

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
        """SHA-256 over what training depends on: the sentences, their cut into blocks, the vocabulary.

        It is that of a JSON text which format version 1 defined, so that runs go on over shards with an index too.
        """
        content = {
            "format_version": BLOCKS_IN_MANIFEST,
            "vocabulary_size": self.vocabulary_size,
            "vocabulary_sha256": self.vocabulary_sha256,
            "special_ids": [self.cls_id, self.sep_id, self.mask_id, self.pad_id, self.unk_id],
            "max_pieces": self.max_pieces,
            "splits": {},
        }
        before, after = json.dumps(content, sort_keys=True).split('"splits": {}')
        digest = hashlib.sha256(f'{before}"splits": {{'.encode())
        for number, split in enumerate(sorted(self.splits)):
            digest.update(f"{', ' if number else ''}{json.dumps(split)}: [".encode())
            for position, shard in enumerate(self.splits[split]):
                text = json.dumps([shard.sha256, shard.blocks.column("sentences").tolist()])
                digest.update(f"{', ' if position else ''}{text}".encode())
            digest.update(b"]")
        digest.update(f"}}{after}".encode())
        return digest.hexdigest()

    def save(self, folder: str | Path) -> Manifest:
        """Write the index of the blocks and the manifest, which comes last. Returns it, with its blocks mapped.

        Raises:
            ValueError: blocks have no SHA-256 (they are of format version 1).
        """
        folder = Path(folder)
        shards = list(chain.from_iterable(self.splits.values()))
        table = BlockTable.joined([shard.blocks for shard in shards])
        if not table.has_sha256:
            raise ValueError("blocks without SHA-256")
        index = table.save(folder / INDEX_NAME)
        content = {f.name: getattr(self, f.name) for f in fields(self)}
        content |= {"tokenizer": asdict(self.tokenizer), "index": asdict(index), "format_version": FORMAT_VERSION}
        content["splits"] = {name: [shard.summary() for shard in shards] for name, shards in self.splits.items()}
        write_atomically(folder / MANIFEST_NAME, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        return Manifest.load(folder)

    @classmethod
    def load(cls, path: str | Path) -> Manifest:
        """Read a manifest from its file or its folder.

        Raises:
            DataError: it is missing or no manifest, or the index of its blocks is.
        """
        file = Path(path) / MANIFEST_NAME if Path(path).is_dir() else Path(path)
        return cls.parse(_read(file), str(file), lambda index: BlockTable.load(file.parent / index.name, index))

    @classmethod
    def parse(
        cls,
        text: str | bytes,
        where: str = "the manifest",
        load_index: Callable[[IndexEntry], BlockTable] | None = None,
    ) -> Manifest:
        """A manifest from its JSON text; `where` it is from goes into messages.

        `load_index` gives the blocks of its index file; not called for format version 1.

        Raises:
            DataError: it is none, or a value in it cannot be right.
        """
        try:
            content = parse_json(text, "its content", REMEDY, max_bytes=MAX_MANIFEST_BYTES)
        except DataError as error:
            raise DataError(f"{where} is not a manifest of shards: {error}") from None
        version = content.get("format_version") if isinstance(content, dict) else None
        if version is None:
            raise DataError(f"{where} is not a manifest of shards; {REMEDY}")
        if type(version) is not int or version not in (BLOCKS_IN_MANIFEST, FORMAT_VERSION):
            raise DataError(
                f"{where} has format_version={shown(version)}, this program reads {BLOCKS_IN_MANIFEST} and "
                f"{FORMAT_VERSION}; make the shards again"
            )
        check = Content(where)
        check.check(content, has_index=version != BLOCKS_IN_MANIFEST)
        content["tokenizer"] = TokenizerEntry(**content["tokenizer"])
        shards = [shard for split in content["splits"].values() for shard in split]
        if version == BLOCKS_IN_MANIFEST:
            tables = [BlockTable.of(BlockEntry(**block) for block in shard["blocks"]) for shard in shards]
        else:
            assert load_index is not None
            content["index"] = IndexEntry(**{**content["index"], "columns": tuple(content["index"]["columns"])})
            tables = _cut(load_index(content["index"]), shards, check)
        blocks = iter(tables)
        content["splits"] = {
            name: tuple(ShardEntry(shard["name"], shard["sha256"], shard["bytes"], next(blocks)) for shard in split)
            for name, split in content["splits"].items()
        }
        return cls(**content)


def _cut(table: BlockTable, shards: list[dict[str, Any]], check: Content) -> list[BlockTable]:
    """The blocks of each shard in an index of all, checked. Raises DataError."""
    borders = list(accumulate((shard["blocks"] for shard in shards), initial=0))
    if borders[-1] != len(table):
        check.fail(f"its shards have {borders[-1]:,} blocks, the index has {len(table):,}")
    tables = [table[start:end] for start, end in pairwise(borders)]
    for shard, blocks in zip(shards, tables, strict=True):
        columns = {name: blocks.column(name).astype(np.int64) for name in COLUMNS if name != "offset"}
        check.check_columns(shard["name"], shard["bytes"], columns | {"offset": blocks.offsets_B})
        for name in COUNTED:
            if columns[name].sum() != shard[name]:
                check.fail(f"{shard['name']} has {shard[name]:,} {name}, its blocks have {columns[name].sum():,}")
    table.release()
    return tables


def _read(file: Path) -> bytes:
    try:
        return read_up_to(file, MAX_MANIFEST_BYTES)
    except FileNotFoundError as error:
        raise DataError(
            f"{file} does not exist: this is not a finished folder of shards; make them with spe shards make "
            "(a run that was interrupted continues where it stopped)"
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{file} cannot be read: {reason}; check the name and its permissions") from error
