"""What a manifest's content must be before anything is made of it: every value of its type, in its range, in its place.

A manifest may come from whoever serves it. Each check names the value; columns of blocks are checked as arrays, so that
a million of them take no time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from spe_dist.data.shards.index import REMEDY, TAR_BLOCK_BYTES
from spe_dist.errors import DataError
from spe_dist.utils.reading.json_file import is_whole, kind_of, shown
from spe_dist.utils.reading.names import RULE, is_safe_name

SPLITS = ("train", "held_out")
MAX_SHARD_BYTES = 1 << 44
MAX_BLOCK_BYTES = 1 << 30
MAX_VOCABULARY = 1 << 31
MAX_PIECES = 1 << 15  # what int16 holds of positions inside a sentence
SPECIAL_IDS = ("cls_id", "sep_id", "mask_id", "pad_id", "unk_id")
COLUMNS = ("offset", "bytes", "crc32", "sentences", "words", "pieces")  # of blocks, beside their names
COUNTED = ("sentences", "words", "pieces")
MAX_BLOCKS = 1 << 32
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MEMBER = re.compile(r"([0-9]{8}|[1-9][0-9]{8})\.npz", re.ASCII)
_REQUIRED = frozenset({"tokenizer", "vocabulary_size", "vocabulary_sha256", *SPECIAL_IDS, "max_pieces", "splits"})
_OPTIONAL = frozenset({"skipped", "noticed", "source", "format_version"})


class Content:
    """Checks of one manifest's JSON content; every fault is a DataError that says where it is from."""

    def __init__(self, where: str) -> None:
        self.where = where

    def fail(self, reason: str) -> NoReturn:
        raise DataError(f"{self.where} is damaged ({reason}); {REMEDY}")

    def check(self, content: Mapping[str, Any], has_index: bool) -> None:
        """Check everything but `format_version`; `has_index`: blocks are in a file beside it. Raises DataError."""
        self._fields(content, _REQUIRED | ({"index"} if has_index else set()), "the manifest", _OPTIONAL)
        if has_index:
            self._index(content["index"])
        self._tokenizer(content["tokenizer"])
        self._number(content["vocabulary_size"], "vocabulary_size", 1, MAX_VOCABULARY)
        self._digest(content["vocabulary_sha256"], "vocabulary_sha256")
        self._number(content["max_pieces"], "max_pieces", 3, MAX_PIECES)
        for name in SPECIAL_IDS:
            self._number(content[name], name, 0, content["vocabulary_size"] - 1)
        if len({content[name] for name in SPECIAL_IDS}) < len(SPECIAL_IDS):
            self.fail(f"two of {', '.join(SPECIAL_IDS)} are equal")
        for field in ("skipped", "noticed"):
            for reason, count in self._object(content.get(field, {}), field).items():
                self._number(count, f"{field}: {shown(reason)}", 0, 1 << 62)
        self._object(content.get("source", {}), "source")
        names: set[str] = set()
        for split, shards in self._object(content["splits"], "splits").items():
            if split not in SPLITS:
                self.fail(f"a split is called {shown(split)}, known are {' and '.join(SPLITS)}")
            for shard in self._list(shards, split):
                self._shard(shard, names, has_index)

    def check_columns(self, shard: str, shard_bytes: int, columns: Mapping[str, np.ndarray]) -> None:
        """Check a shard's blocks, int64 columns by the names of COLUMNS. Raises DataError.

        They lie one behind another inside the shard and hold the bytes that so many words and pieces take.
        """
        offset, size = columns["offset"], columns["bytes"]
        sentences, words, pieces = (columns[name] for name in ("sentences", "words", "pieces"))
        end = offset + size
        faults = (
            ((offset < 0) | (offset > shard_bytes), "begins outside of the shard"),
            ((size < 1) | (size > MAX_BLOCK_BYTES), f"has no bytes or more than {MAX_BLOCK_BYTES:,}"),
            ((columns["crc32"] < 0) | (columns["crc32"] >= 1 << 32), "has a crc32 that is none"),
            (end > shard_bytes, f"ends behind the shard, which has {shard_bytes:,} bytes"),
            (np.append(end[:-1] > offset[1:], False), "overlaps the next one"),
            (
                (sentences < 1) | (words < sentences) | (pieces < words),
                "counts sentences, words and pieces that cannot be",
            ),
            (pieces > size, "counts more pieces than it has bytes"),
        )
        for is_faulty, reason in faults:
            if is_faulty.any():
                self.fail(f"shard {shard}: block {int(np.argmax(is_faulty)):,} {reason}")

    def _index(self, index: Any) -> None:
        self._fields(index, frozenset({"name", "bytes", "sha256", "columns"}), "the index")
        self._name(index["name"])
        self._number(index["bytes"], "bytes of the index", 0, MAX_SHARD_BYTES)
        self._digest(index["sha256"], "sha256 of the index")
        self._list(index["columns"], "columns of the index")

    def _shard(self, shard: Any, names: set[str], has_index: bool) -> None:
        counted = frozenset(COUNTED) if has_index else frozenset()
        self._fields(shard, frozenset({"name", "sha256", "bytes", "blocks"}) | counted, "a shard")
        name = self._name(shard["name"])
        if name in names:
            self.fail(f"the shard {name} stands twice")
        names.add(name)
        self._digest(shard["sha256"], f"sha256 of {name}")
        self._number(shard["bytes"], f"bytes of {name}", 0, MAX_SHARD_BYTES)
        if has_index:
            self._number(shard["blocks"], f"blocks of {name}", 0, MAX_BLOCKS)
            for counts in COUNTED:
                self._number(shard[counts], f"{counts} of {name}", 0, 1 << 62)
            return
        self._blocks(name, shard["bytes"], self._list(shard["blocks"], f"blocks of {name}"))

    def _blocks(self, name: str, shard_bytes: int, blocks: list[Any]) -> None:
        fields = frozenset({"member", *COLUMNS})
        for block in blocks:
            self._fields(block, fields, f"a block of {name}")
        members = [block["member"] for block in blocks]
        for member in members:
            if not (isinstance(member, str) and _MEMBER.fullmatch(member)):
                self.fail(f"a block of {name} is called {shown(member)}")
        if len(set(members)) < len(members):
            self.fail(f"shard {name} has two blocks of one name")
        columns = {column: self._column([block[column] for block in blocks], column, name) for column in COLUMNS}
        self.check_columns(name, shard_bytes, columns)
        if columns["offset"].size and (columns["offset"] % TAR_BLOCK_BYTES).any():
            self.fail(f"a block of {name} begins inside a block of the tar")

    def _column(self, values: Sequence[Any], column: str, shard: str) -> np.ndarray:
        if not set(map(type, values)) <= {int}:
            wrong = next(value for value in values if type(value) is not int)
            self.fail(f"{column} of a block of {shard} is {shown(wrong)}, no whole number")
        try:
            return np.array(values, dtype=np.int64)
        except OverflowError:
            self.fail(f"{column} of a block of {shard} is out of range")

    def _tokenizer(self, tokenizer: Any) -> None:
        self._fields(tokenizer, frozenset({"kind", "name", "do_lower_case", "files"}), "tokenizer")
        for field in ("kind", "name"):
            if not isinstance(tokenizer[field], str):
                self.fail(f"tokenizer: {field} is {shown(tokenizer[field])}, no text")
        if not isinstance(tokenizer["do_lower_case"], bool):
            self.fail(f"tokenizer: do_lower_case is {shown(tokenizer['do_lower_case'])}, not true or false")
        for name, digest in self._object(tokenizer["files"], "files of the tokenizer").items():
            self._digest(digest, f"SHA-256 of {self._name(name)}")

    def _name(self, name: Any) -> str:
        if not is_safe_name(name):
            raise DataError(f"{self.where} names the file {shown(name)}: {RULE}; do not use these shards")
        return str(name)

    def _fields(self, value: Any, required: frozenset[str], what: str, optional: frozenset[str] = frozenset()) -> None:
        keys = self._object(value, what).keys()
        if keys == required:
            return
        for faulty, reason in ((required - keys, "has no"), (keys - required - optional, "has an unknown")):
            if faulty:
                self.fail(f"{what} {reason} {shown(sorted(faulty)[0])}")

    def _object(self, value: Any, what: str) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            self.fail(f"{what} is {kind_of(value)}, no object")
        return value

    def _list(self, value: Any, what: str) -> list[Any]:
        if not isinstance(value, list):
            self.fail(f"{what}: {kind_of(value)} where a list is expected")
        return value

    def _number(self, value: Any, what: str, low: int, high: int) -> None:
        if not is_whole(value, low, high):
            self.fail(f"{what} is {shown(value)}, no whole number from {low:,} to {high:,}")

    def _digest(self, value: Any, what: str) -> None:
        if not isinstance(value, str) or not _SHA256.fullmatch(value):
            self.fail(f"{what} is {shown(value)}, no SHA-256")
