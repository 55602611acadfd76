"""A block of sentences as arrays, and the tar shards that blocks are written to.

A shard is a WebDataset tar; each member `{index:08d}.npz` is one block, an uncompressed npz whose bytes depend on the
arrays alone. Any `webdataset.WebDataset(urls).decode()` reads it.

Legend of the shape suffixes: N sentences, T pieces, W words; N1 = N + 1 borders
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spe_dist.data.shards.manifest import BlockEntry, ShardEntry
from spe_dist.errors import DataError
from spe_dist.utils.files import atomic_file, file_sha256

ARRAYS = ("piece_ids", "piece_offsets", "first_pieces", "word_offsets")
ZIP_DATE = (1980, 1, 1, 0, 0, 0)
TAR_BLOCK_BYTES = 512


@dataclass(frozen=True)
class Block:
    """N tokenised sentences, one behind the other; no [CLS] and [SEP] inside.

    Sentence i has the pieces piece_ids_T[piece_offsets_N1[i]:piece_offsets_N1[i + 1]], and its words' first pieces are
    first_pieces_W[word_offsets_N1[i]:word_offsets_N1[i + 1]], each an index inside the sentence (0 for the first).
    """

    first_sentence_id: int
    piece_ids_T: np.ndarray  # uint16 where the vocabulary has at most 65,536 pieces, else int32
    piece_offsets_N1: np.ndarray  # int32
    first_pieces_W: np.ndarray  # uint8 where sentences have at most 256 pieces, else int16
    word_offsets_N1: np.ndarray  # int32

    @property
    def n_sentences(self) -> int:
        return self.piece_offsets_N1.shape[0] - 1

    @property
    def n_words(self) -> int:
        return self.first_pieces_W.shape[0]

    @property
    def n_pieces(self) -> int:
        return self.piece_ids_T.shape[0]

    def to_bytes(self) -> bytes:
        """The block as an uncompressed npz; equal arrays give equal bytes."""
        arrays = (self.piece_ids_T, self.piece_offsets_N1, self.first_pieces_W, self.word_offsets_N1)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for name, array in zip(ARRAYS, arrays, strict=True):
                member = io.BytesIO()
                np.lib.format.write_array(member, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
                info = zipfile.ZipInfo(f"{name}.npy", ZIP_DATE)
                info.create_system = 3
                archive.writestr(info, member.getvalue())
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, first_sentence_id: int = 0) -> Block:
        """Read what `to_bytes` wrote.

        Raises:
            DataError: the bytes are no such block.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                arrays = [archive[name] for name in ARRAYS]
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"not a block of sentences: {error}") from error
        return cls(first_sentence_id, *arrays)

    def problem(self, vocabulary_size: int, max_pieces: int) -> str | None:
        """What contradicts the format, or None: borders, words that do not start in order, ids out of range."""
        pieces_N = self.piece_offsets_N1[1:].astype(np.int64) - self.piece_offsets_N1[:-1]
        words_N = self.word_offsets_N1[1:].astype(np.int64) - self.word_offsets_N1[:-1]
        if pieces_N.shape != words_N.shape:
            return f"{pieces_N.size} sentences by pieces, {words_N.size} by words"
        for offsets_N1, total in ((self.piece_offsets_N1, self.n_pieces), (self.word_offsets_N1, self.n_words)):
            if offsets_N1[0] != 0 or offsets_N1[-1] != total:
                return f"offsets run from {offsets_N1[0]} to {offsets_N1[-1]} over {total} entries"
        if np.any(words_N < 1) or np.any(pieces_N < words_N) or np.any(pieces_N + 2 > max_pieces):
            return f"a sentence without words, with fewer pieces than words or over {max_pieces} pieces"
        if self.n_pieces and int(self.piece_ids_T.max()) >= vocabulary_size:
            return f"piece id {int(self.piece_ids_T.max())} in a vocabulary of {vocabulary_size}"
        first_W = self.first_pieces_W.astype(np.int64)
        starts_N = self.word_offsets_N1[:-1]
        step_W = np.diff(first_W, prepend=-1)
        step_W[starts_N] = 1
        if np.any(first_W[starts_N] != 0) or np.any(step_W < 1) or np.any(first_W >= np.repeat(pieces_N, words_N)):
            return "first pieces of words that do not ascend from 0 inside their sentence"
        return None


def member_name(block_index: int) -> str:
    return f"{block_index:08d}.npz"


def write_shard(path: Path, blocks: Iterable[tuple[int, Block]]) -> ShardEntry:
    """Write (block index, block) pairs as one WebDataset tar and return its manifest entry.

    The bytes depend on the blocks alone. The file appears under its name only when it is complete.
    """
    from webdataset import TarWriter

    entries: list[BlockEntry] = []
    offset = TAR_BLOCK_BYTES
    with atomic_file(path) as written:
        with (
            open(written, "wb") as file,
            TarWriter(file, user="", group="", mode=0o444, mtime=0, encoder=False) as writer,
        ):
            for index, block in blocks:
                data = block.to_bytes()
                writer.write({"__key__": member_name(index).removesuffix(".npz"), "npz": data})
                entries.append(
                    BlockEntry(
                        member=member_name(index),
                        offset=offset,
                        bytes=len(data),
                        crc32=zlib.crc32(data),
                        sentences=block.n_sentences,
                        words=block.n_words,
                        pieces=block.n_pieces,
                    )
                )
                offset += -(-len(data) // TAR_BLOCK_BYTES) * TAR_BLOCK_BYTES + TAR_BLOCK_BYTES
        digest, size = file_sha256(written), written.stat().st_size
    return ShardEntry(name=path.name, sha256=digest, bytes=size, blocks=tuple(entries))
