"""Where the bytes of blocks come from: a folder, or a URL, block by block or in whole shards, through a cache."""

from __future__ import annotations

import hashlib
import os
import time
import zlib
from pathlib import Path
from typing import IO, Protocol

from spe_dist.data.shards import transport
from spe_dist.data.shards.cache import FileCache
from spe_dist.data.shards.index import BlockEntry
from spe_dist.data.shards.manifest import MANIFEST_NAME, ShardEntry
from spe_dist.data.shards.prefetch import Prefetcher
from spe_dist.data.shards.remote import file_url
from spe_dist.errors import DataError
from spe_dist.utils.reading.bounded import TooSlow, chunks
from spe_dist.utils.reading.files import open_file
from spe_dist.utils.wording import shown_url

FETCH_THREADS = 8  # of a process: blocks that are on their way at the same time
SHARD_THREADS = 2
LOOKAHEAD_SENTENCES = 512  # of each stream: half a block, seconds of training
VERIFY_REMEDY = "run `spe shards verify` on the folder, then copy or make the shards again"


class Source(Protocol):
    """The bytes of blocks."""

    def read(self, shard: ShardEntry, entry: BlockEntry) -> bytes:
        """A block's bytes, compared with its checksums. Raises DataError."""
        ...

    def shard_file(self, shard: ShardEntry) -> Path:
        """A local file with a whole shard. Raises DataError."""
        ...

    def has_ranges(self, shard: ShardEntry) -> bool:
        """Whether blocks can be read without their shards. Raises DataError."""
        ...

    def lookahead_sentences(self, shard: ShardEntry) -> int:
        """How many sentences before a stream needs a block it should be fetched; 0: no need to."""
        ...

    def prefetch(self, shard: ShardEntry, entry: BlockEntry) -> None:
        """Fetch in the background what `read` would wait for."""
        ...


def read_part(file: Path, entry: BlockEntry) -> bytes:
    """A block's bytes in the file of its shard, fewer where it ends before. Raises OSError."""
    with open_file(file) as stream:
        stream.seek(entry.offset)
        parts, missing = [], entry.bytes
        while missing and (part := stream.read(missing)):
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)


def fault_of(data: bytes, entry: BlockEntry) -> str | None:
    """What is wrong with a block's bytes, in words; None where they are those of the index."""
    if len(data) != entry.bytes:
        return "cut short"
    if zlib.crc32(data) != entry.crc32 or (entry.sha256 and hashlib.sha256(data).hexdigest() != entry.sha256):
        return "damaged (checksum)"
    return None


class FolderSource:
    """Shards in a local folder."""

    def __init__(self, folder: Path, source: str) -> None:
        self.folder = folder
        self.source = source

    def read(self, shard: ShardEntry, entry: BlockEntry) -> bytes:
        try:
            data = read_part(self.shard_file(shard), entry)
        except FileNotFoundError as error:
            raise DataError(f"shard {shard.name} is missing from {self.source}; {VERIFY_REMEDY}") from error
        except OSError as error:
            raise DataError(f"shard {shard.name} in {self.source} cannot be read: {error}; {VERIFY_REMEDY}") from error
        if fault := fault_of(data, entry):
            raise DataError(
                f"shard {shard.name}, block {entry.member} in {shown_url(self.source)}: {fault}; {VERIFY_REMEDY}"
            )
        return data

    def has_ranges(self, shard: ShardEntry) -> bool:
        return True

    def lookahead_sentences(self, shard: ShardEntry) -> int:
        return 0

    def prefetch(self, shard: ShardEntry, entry: BlockEntry) -> None:
        pass

    def shard_file(self, shard: ShardEntry) -> Path:
        return self.folder / shard.name


class UrlSource:
    """Shards behind a URL: blocks by range where it gives ranges and they have a SHA-256, else whole shards.

    Both lie in the cache by their checksum, so that all processes of a node fetch each once. Picklable.
    """

    def __init__(self, source: str, cache: FileCache, timeout_s: float) -> None:
        self.source = source
        self.cache = cache
        self.timeout_s = timeout_s
        self.waited_s = 0.0  # that reads took, over all of this process
        self._whole = not transport.may_have_ranges(source)
        self._blocks = Prefetcher(self._prefetch_block, FETCH_THREADS)
        self._shards = Prefetcher(self._prefetch_shard, SHARD_THREADS)

    def __getstate__(self) -> dict:
        kept = ("source", "cache", "timeout_s", "_whole")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state["source"], state["cache"], state["timeout_s"])  # type: ignore[misc]
        self._whole = state["_whole"]

    def has_ranges(self, shard: ShardEntry) -> bool:
        """Whether blocks can be read alone; a server of http is asked for the first byte of the manifest.

        Raises:
            DataError: it does not answer.
        """
        if not self._whole and not (len(shard.blocks) and shard.blocks.has_sha256):
            return False
        if not self._whole and transport.is_http(self.source):
            url = file_url(self.source, MANIFEST_NAME)  # small, should all of it come
            try:
                transport.with_attempts(url, lambda: transport.read_range(url, 0, 1, self.timeout_s))
            except transport.NoRanges:
                self._whole = True
        return not self._whole

    def read(self, shard: ShardEntry, entry: BlockEntry) -> bytes:
        began = time.monotonic()
        try:
            if entry.sha256 and not self._whole:
                try:
                    return self._read_block(shard, entry)
                except transport.NoRanges:
                    self._whole = True
            return self._read_from_shard(shard, entry)
        finally:
            self.waited_s += time.monotonic() - began

    def lookahead_sentences(self, shard: ShardEntry) -> int:
        return shard.sentences // 2 if self._whole or not shard.blocks.has_sha256 else LOOKAHEAD_SENTENCES

    def prefetch(self, shard: ShardEntry, entry: BlockEntry) -> None:
        """Fetch a block, or its shard, in the background."""
        if entry.sha256 and not self._whole:
            self._blocks.want((shard.name, entry))
        else:
            self._shards.want(shard)

    def shard_file(self, shard: ShardEntry) -> Path:
        """The whole shard in the cache, fetched where it is not there; another process may remove it at any time."""
        url = file_url(self.source, shard.name)

        def fetch() -> Path:
            if self._fill_shard(shard, url, wait_s=self._longest_s(shard.bytes)):
                return self.cache.path(shard.sha256)
            raise TooSlow(f"another process has been fetching it for {self._longest_s(shard.bytes):.0f} s")

        return transport.with_attempts(url, fetch)

    def _longest_s(self, size: int) -> float:
        """How long a file may take: one in a hundred of what the limit on pace allows, or a few time-outs."""
        return 4 * self.timeout_s + size / (100 * transport.SLOWEST_BYTES_PER_S)

    def _read_block(self, shard: ShardEntry, entry: BlockEntry) -> bytes:
        for _ in range(2):
            data = self.cache.read(entry.sha256)
            if data is not None and fault_of(data, entry) is None:
                return data
            if data is not None:
                self.cache.remove(entry.sha256)
            fetched = self._fetch_block(shard.name, entry, wait_s=self._longest_s(entry.bytes))
            if fetched is not None:
                return fetched
        return self._range(shard.name, entry)  # the cache forgets faster than it can be read: do without it

    def _fetch_block(self, name: str, entry: BlockEntry, wait_s: float | None) -> bytes | None:
        """Bring a block into the cache; its bytes where this process fetched them."""
        fetched: list[bytes] = []

        def write(file: IO[bytes]) -> None:
            fetched.append(self._range(name, entry))
            file.write(fetched[0])

        try:
            self.cache.fill(entry.sha256, entry.bytes, write, wait_s)
        except OSError:  # a full or broken disk under the cache ends no run
            if not fetched:
                fetched.append(self._range(name, entry))
        return fetched[0] if fetched else None

    def _range(self, name: str, entry: BlockEntry) -> bytes:
        url = file_url(self.source, name)

        def read() -> bytes:
            data = transport.read_range(url, entry.offset, entry.bytes, self.timeout_s)
            if fault := fault_of(data, entry):
                raise OSError(f"block {entry.member} is {fault}")
            return data

        return transport.with_attempts(url, read)

    def _prefetch_block(self, key: tuple[str, BlockEntry]) -> None:
        name, entry = key
        if not self._whole and not self.cache.path(entry.sha256).is_file():
            try:
                self._fetch_block(name, entry, wait_s=None)
            except transport.NoRanges:
                self._whole = True

    def _prefetch_shard(self, shard: ShardEntry) -> None:
        self._fill_shard(shard, file_url(self.source, shard.name), wait_s=None)

    def _read_from_shard(self, shard: ShardEntry, entry: BlockEntry) -> bytes:
        fault = "missing"
        for attempt in range(3):
            path = self.shard_file(shard)
            try:
                data = read_part(path, entry)
                os.utime(path)
            except FileNotFoundError:
                continue  # removed meanwhile to make space
            fault = fault_of(data, entry) or ""
            if not fault:
                return data
            if attempt == 0:
                self.cache.remove(shard.sha256)
        raise DataError(
            f"shard {shard.name}, block {entry.member} in {shown_url(self.source)}: {fault}; {VERIFY_REMEDY}"
        )

    def _fill_shard(self, shard: ShardEntry, url: str, wait_s: float | None) -> bool:
        def write(file: IO[bytes]) -> None:
            digest, received = hashlib.sha256(), 0
            file.seek(0)
            with transport.open_url(url, self.timeout_s) as stream:
                for chunk in chunks(stream, shard.bytes, self.timeout_s):
                    file.write(chunk)
                    digest.update(chunk)
                    received += len(chunk)
            if digest.hexdigest() != shard.sha256:
                raise OSError(f"its {received:,} bytes have another checksum than the manifest says")

        return self.cache.fill(shard.sha256, shard.bytes, write, wait_s)
