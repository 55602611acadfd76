"""Random access to the blocks of a folder of shards, local or behind a URL.

WebDataset passes over damaged tars in silence; here every block that is read is compared with the manifest, and
`verify` reads everything, by webdataset too.
"""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from spe_dist.data.shards import remote
from spe_dist.data.shards.blocks import Block
from spe_dist.data.shards.index import BlockEntry, BlockTable, IndexEntry
from spe_dist.data.shards.manifest import MANIFEST_NAME, TOKENIZER_FOLDER, Manifest, ShardEntry
from spe_dist.data.shards.verify import VerifyReport, verify_shards
from spe_dist.errors import DataError
from spe_dist.utils.ragged import borders

VERIFY_REMEDY = "run `spe shards verify` on the folder, then copy or make the shards again"


class ShardStore:
    """The blocks of one split. Picklable; holds no open file, so loader workers may share it.

    manifest: the folder's manifest
    block_sentences: int64 [n_blocks], sentences of each block
    first_sentence_id: id of the split's first sentence
    """

    def __init__(self, source: str, manifest: Manifest, split: str, folder: Path, is_local: bool) -> None:
        self.source = source
        self.manifest = manifest
        self.split = split
        self.folder = folder
        self.is_local = is_local
        self._count()

    def _count(self) -> None:
        """What follows from the manifest."""
        self._shards = self.manifest.shards(self.split)
        self._shard_borders = np.cumsum([0, *(len(shard.blocks) for shard in self._shards)])
        none = np.empty(0, dtype=np.int64)
        self.block_sentences = np.concatenate([none, *(shard.blocks.column("sentences") for shard in self._shards)])
        self.first_sentence_id = self.manifest.first_sentence_id(self.split)
        self._block_borders = borders(self.block_sentences) + self.first_sentence_id
        self.n_sentences = int(self._block_borders[-1]) - self.first_sentence_id

    def __getstate__(self) -> dict[str, Any]:
        """Without what `_count` finds again: a million blocks are then a few hundred kB, mapped anew where it goes."""
        kept = ("source", "manifest", "split", "folder", "is_local")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._count()

    @classmethod
    def open(cls, source: str, split: str = "train", cache_dir: str | None = None) -> ShardStore:
        """Open a folder, or a URL that webdataset opens (http(s), `pipe:`, `file:`, object stores).

        Shards of a URL are kept in `cache_dir` (none: `spe_dist` in the user's cache folder), under the checksum of
        their manifest.

        Raises:
            DataError: there is no manifest, or no such split.
        """
        folder = remote.local_folder(source)
        if folder is not None:
            return cls(source, Manifest.load(folder), split, folder, is_local=True)
        url = remote.file_url(source, MANIFEST_NAME)
        text = remote.read_url(url)
        folder = remote.cache_root(cache_dir) / hashlib.sha256(text).hexdigest()[:20]
        folder.mkdir(parents=True, exist_ok=True)

        def load_index(index: IndexEntry) -> BlockTable:
            remote.fetch_file(remote.file_url(source, index.name), folder / index.name, index.sha256, index.bytes)
            return BlockTable.load(folder / index.name, index)

        manifest = Manifest.parse(text, url, load_index)
        return cls(source, manifest, split, folder, is_local=False)

    def block(self, index: int) -> Block:
        """The split's block with this index. DataError naming shard and block where it is not as the manifest says."""
        shard, entry = self._entry(index)
        problem = "missing"
        for attempt in range(1 if self.is_local else 2):
            path = self._shard_file(shard)
            data = self._read(path, entry)
            if zlib.crc32(data) == entry.crc32:
                return self._decode(data, shard, entry, int(self._block_borders[index]))
            problem = "cut short" if len(data) < entry.bytes else "damaged (checksum)"
            if not self.is_local and attempt == 0:
                path.unlink(missing_ok=True)
        raise DataError(f"shard {shard.name}, block {entry.member} in {self.source}: {problem}; {VERIFY_REMEDY}")

    def _entry(self, index: int) -> tuple[ShardEntry, BlockEntry]:
        number = int(np.searchsorted(self._shard_borders, index, side="right")) - 1
        shard = self._shards[number]
        return shard, shard.blocks[index - int(self._shard_borders[number])]

    def block_of(self, sentence_id: int) -> tuple[int, int]:
        """(block index, index inside the block) of a sentence of this split, by its id."""
        position = sentence_id - self.first_sentence_id
        if not 0 <= position < self.n_sentences:
            first, last = self.first_sentence_id, self.first_sentence_id + self.n_sentences - 1
            raise DataError(f"sentence {sentence_id} is not in split {self.split!r}, whose ids are {first} to {last}")
        block = int(np.searchsorted(self._block_borders, sentence_id, side="right")) - 1
        return block, sentence_id - int(self._block_borders[block])

    def check_files(self) -> None:
        """Every shard of a folder is there with its size; DataError names the first that is not.

        Those of a URL are fetched when they are read, damaged ones in the cache again.
        """
        for shards in self.manifest.splits.values() if self.is_local else ():
            for shard in shards:
                path = self.folder / shard.name
                size = path.stat().st_size if path.is_file() else None
                if size != shard.bytes:
                    found = "is missing" if size is None else f"has {size:,} bytes instead of {shard.bytes:,}"
                    raise DataError(f"shard {shard.name} in {self.source} {found}; {VERIFY_REMEDY}")

    def verify(self) -> VerifyReport:
        """Read everything, all splits: checksums, members, arrays, and the same once more through webdataset."""
        problems = {}
        for shards in () if self.is_local else self.manifest.splits.values():
            for shard in shards:
                try:
                    self._shard_file(shard)
                except DataError as error:
                    problems[shard.name] = str(error)
        return verify_shards(self.folder, self.manifest, problems)

    def tokenizer_folder(self) -> Path:
        """Local folder with the tokenizer's files, fetched where the shards are behind a URL."""
        folder = self.folder / TOKENIZER_FOLDER
        for name, sha256 in self.manifest.tokenizer.files.items():
            if not self.is_local:
                remote.fetch_file(remote.file_url(self.source, f"{TOKENIZER_FOLDER}/{name}"), folder / name, sha256)
            elif not (folder / name).is_file():
                raise DataError(f"{folder / name} is missing; {VERIFY_REMEDY}")
        return folder

    def _shard_file(self, shard: ShardEntry) -> Path:
        path = self.folder / shard.name
        if not self.is_local:
            remote.fetch_file(remote.file_url(self.source, shard.name), path, shard.sha256, shard.bytes)
        return path

    def _read(self, path: Path, entry: BlockEntry) -> bytes:
        try:
            with open(path, "rb", buffering=0) as file:
                file.seek(entry.offset)
                parts, missing = [], entry.bytes
                while missing and (part := file.read(missing)):
                    parts.append(part)
                    missing -= len(part)
                return b"".join(parts)
        except FileNotFoundError as error:
            raise DataError(f"shard {path.name} is missing from {self.source}; {VERIFY_REMEDY}") from error
        except OSError as error:
            raise DataError(f"shard {path.name} in {self.source} cannot be read: {error}; {VERIFY_REMEDY}") from error

    def _decode(self, data: bytes, shard: ShardEntry, entry: BlockEntry, first_sentence_id: int) -> Block:
        try:
            block = Block.from_bytes(data, first_sentence_id)
        except DataError as error:
            raise DataError(f"shard {shard.name}, block {entry.member}: {error}; {VERIFY_REMEDY}") from error
        found = (block.n_sentences, block.n_words, block.n_pieces)
        expected = (entry.sentences, entry.words, entry.pieces)
        if found != expected:
            raise DataError(
                f"shard {shard.name}, block {entry.member}: sentences, words and pieces are {found}, "
                f"the manifest says {expected}; {VERIFY_REMEDY}"
            )
        if problem := block.problem(self.manifest.vocabulary_size, self.manifest.max_pieces):
            raise DataError(f"shard {shard.name}, block {entry.member}: {problem}; {VERIFY_REMEDY}")
        return block
