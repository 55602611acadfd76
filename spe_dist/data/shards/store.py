"""Random access to the blocks of a folder of shards, local or behind a URL.

WebDataset passes over damaged tars in silence; here every block that is read is compared with the manifest, and
`verify` reads everything, by webdataset too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from spe_dist.data.shards import remote, transport
from spe_dist.data.shards.blocks import Block
from spe_dist.data.shards.cache import DEFAULT_CACHE_GIB, FileCache
from spe_dist.data.shards.index import BlockEntry, BlockTable, IndexEntry
from spe_dist.data.shards.manifest import MANIFEST_NAME, TOKENIZER_FOLDER, Manifest, ShardEntry
from spe_dist.data.shards.sources import VERIFY_REMEDY, FolderSource, Source, UrlSource
from spe_dist.data.shards.verify import VerifyReport, verify_shards
from spe_dist.errors import DataError
from spe_dist.utils.ragged import borders
from spe_dist.utils.reading.bounded import TIMEOUT_S
from spe_dist.utils.wording import shown_url

FILES_FOLDER = "files"  # of a cache: shards and blocks of all URLs, by checksum


class ShardStore:
    """The blocks of one split. Picklable; holds no open file, so loader workers may share it.

    manifest: the folder's manifest
    block_sentences: int32 [n_blocks], sentences of each block
    first_sentence_id: id of the split's first sentence
    """

    def __init__(self, source: str, manifest: Manifest, split: str, folder: Path, files: Source) -> None:
        self.source = source
        self.manifest = manifest
        self.split = split
        self.folder = folder  # of manifest, index and tokenizer; for a URL, in the cache
        self.files = files
        self._count()

    def _count(self) -> None:
        """What follows from the manifest."""
        self._shards = self.manifest.shards(self.split)
        self._shard_borders = np.cumsum([0, *(len(shard.blocks) for shard in self._shards)])
        none = np.empty(0, dtype=np.int32)
        sizes = [shard.blocks.column("sentences").astype(np.int32) for shard in self._shards]
        self.block_sentences = np.concatenate([none, *sizes])
        self.first_sentence_id = self.manifest.first_sentence_id(self.split)
        self._shard_sentences = borders(np.array([size.sum(dtype=np.int64) for size in sizes], dtype=np.int64))
        self.n_sentences = int(self._shard_sentences[-1])

    def __getstate__(self) -> dict[str, Any]:
        """Without what `_count` finds again: a million blocks are then a few hundred kB, mapped anew where it goes."""
        kept = ("source", "manifest", "split", "folder", "files")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._count()

    @classmethod
    def open(
        cls,
        source: str,
        split: str = "train",
        cache_dir: str | None = None,
        cache_gib: float = DEFAULT_CACHE_GIB,
        fetch_timeout_s: float = TIMEOUT_S,
    ) -> ShardStore:
        """Open a folder, or a URL: http(s), `file:`, `pipe:`, or one of an object store that fsspec opens.

        Args:
            source: the folder or URL.
            split: which sentences.
            cache_dir: where files of a URL are kept; none: `spe_dist` in the user's cache folder.
            cache_gib: what blocks and shards may take there, altogether.
            fetch_timeout_s: how long a server may send nothing, or less than 1 KiB/s.

        Raises:
            DataError: there is no manifest, or no such split.
        """
        folder = remote.local_folder(source)
        if folder is not None:
            return cls(source, Manifest.load(folder), split, folder, FolderSource(folder, source))
        url = remote.file_url(source, MANIFEST_NAME)
        text = transport.read_url(url, timeout_s=fetch_timeout_s)
        root = remote.cache_root(cache_dir)
        folder = root / hashlib.sha256(text).hexdigest()[:20]
        folder.mkdir(parents=True, exist_ok=True)

        def load_index(index: IndexEntry) -> BlockTable:
            file, index_url = folder / index.name, remote.file_url(source, index.name)
            remote.fetch_file(index_url, file, index.sha256, index.bytes, fetch_timeout_s)
            try:
                return BlockTable.load(file, index)
            except DataError:
                file.unlink(missing_ok=True)  # what was right when it came has been damaged in the cache
            remote.fetch_file(index_url, file, index.sha256, index.bytes, fetch_timeout_s)
            return BlockTable.load(file, index)

        manifest = Manifest.parse(text, shown_url(url), load_index)
        cache = FileCache(root / FILES_FOLDER, int(cache_gib * 2**30))
        return cls(source, manifest, split, folder, UrlSource(source, cache, fetch_timeout_s))

    @property
    def is_local(self) -> bool:
        """Whether the shards are a folder's."""
        return isinstance(self.files, FolderSource)

    def block(self, index: int) -> Block:
        """The split's block with this index. DataError naming shard and block where it is not as the manifest says."""
        shard, entry, first_id = self._entry(index)
        return self._decode(self.files.read(shard, entry), shard, entry, first_id)

    def prefetch(self, blocks: Iterable[int]) -> None:
        """Fetch blocks behind a URL in the background; `block` of them waits for nothing when they are there."""
        if not self.is_local:
            for index in blocks:
                self.files.prefetch(*self._entry(index)[:2])

    @property
    def lookahead_sentences(self) -> int:
        """How far ahead of its sentences a stream should say which blocks it comes to; 0: no need to."""
        return self.files.lookahead_sentences(self._shards[0]) if self._shards else 0

    @property
    def shard_blocks(self) -> np.ndarray:
        """int64 [shards]: blocks of each shard of the split."""
        return np.diff(self._shard_borders)

    def has_ranges(self) -> bool:
        """Whether a block can be read without its shard; a server may be asked. Raises DataError."""
        return not self._shards or self.files.has_ranges(self._shards[0])

    def _entry(self, index: int) -> tuple[ShardEntry, BlockEntry, int]:
        """The shard of a block, the block's entry, the id of its first sentence."""
        number = int(np.searchsorted(self._shard_borders, index, side="right")) - 1
        shard, inside = self._shards[number], index - int(self._shard_borders[number])
        before = int(self._shard_sentences[number]) + shard.blocks[:inside].total("sentences")
        return shard, shard.blocks[inside], self.first_sentence_id + before

    def block_of(self, sentence_id: int) -> tuple[int, int]:
        """(block index, index inside the block) of a sentence of this split, by its id."""
        position = sentence_id - self.first_sentence_id
        if not 0 <= position < self.n_sentences:
            first, last = self.first_sentence_id, self.first_sentence_id + self.n_sentences - 1
            raise DataError(f"sentence {sentence_id} is not in split {self.split!r}, whose ids are {first} to {last}")
        number = int(np.searchsorted(self._shard_sentences, position, side="right")) - 1
        inside = position - int(self._shard_sentences[number])
        starts = borders(self._shards[number].blocks.column("sentences"))
        block = int(np.searchsorted(starts, inside, side="right")) - 1
        return int(self._shard_borders[number]) + block, inside - int(starts[block])

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
        return verify_shards(self.folder, self.manifest, self.files.shard_file)

    def tokenizer_folder(self) -> Path:
        """Local folder with the tokenizer's files, fetched where the shards are behind a URL."""
        folder = self.folder / TOKENIZER_FOLDER
        for name, sha256 in self.manifest.tokenizer.files.items():
            if not self.is_local:
                remote.fetch_file(remote.file_url(self.source, f"{TOKENIZER_FOLDER}/{name}"), folder / name, sha256)
            elif not (folder / name).is_file():
                raise DataError(f"{folder / name} is missing; {VERIFY_REMEDY}")
        return folder

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
