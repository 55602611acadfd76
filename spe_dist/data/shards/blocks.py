"""A block of sentences as arrays, and the tar shards that blocks are written to.

A shard is a WebDataset tar; each member `{index:08d}.npz` is one block, an uncompressed npz whose bytes depend on the
arrays alone. Any `webdataset.WebDataset(urls).decode()` reads it.

Legend of the shape suffixes: N sentences, T pieces, W words; N1 = N + 1 borders
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spe_dist.data.shards.index import TAR_BLOCK_BYTES, BlockEntry, BlockTable, member_name
from spe_dist.data.shards.manifest import ShardEntry
from spe_dist.errors import DataError
from spe_dist.utils.files import atomic_file, file_sha256

ARRAYS = {  # name -> the types that it may have
    "piece_ids": (b"<u2", b"<i4"),
    "piece_offsets": (b"<i4",),
    "first_pieces": (b"|u1", b"<i2"),
    "word_offsets": (b"<i4",),
}
ZIP_DATE = (1980, 1, 1, 0, 0, 0)
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip's member: mark, and the lengths of its name and its extra field
_NPY_MAGIC = b"\x93NUMPY\x01\x00"
_NPY_HEADER = re.compile(rb"\{'descr': '(..?.)', 'fortran_order': False, 'shape': \(([0-9]{1,10}),\), ?\} *\n")


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
        """Read what `to_bytes` wrote; the arrays are views of `data`, and nothing else is allocated or run.

        Raises:
            DataError: the bytes are no such block.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                members = {info.filename: info for info in archive.infolist()}
        except (ValueError, OSError, EOFError, NotImplementedError, zipfile.BadZipFile, struct.error) as error:
            raise DataError(f"not a block of sentences: {error}") from error
        arrays = []
        for name, types in ARRAYS.items():
            if f"{name}.npy" not in members:
                raise DataError(f"not a block of sentences: it has no array {name}")
            arrays.append(_array(data, members[f"{name}.npy"], types))
        return cls(first_sentence_id, *arrays)

    def problem(self, vocabulary_size: int, max_pieces: int) -> str | None:
        """What contradicts the format, or None: borders, words that do not start in order, ids out of range.

        Costs a tenth of what reading the block does: every block that is opened is checked.
        """
        sentences = self.piece_offsets_N1.size - 1
        if sentences < 1 or self.word_offsets_N1.size - 1 != sentences:
            return f"{sentences:,} sentences by pieces, {self.word_offsets_N1.size - 1:,} by words"
        for offsets_N1, total in ((self.piece_offsets_N1, self.n_pieces), (self.word_offsets_N1, self.n_words)):
            if offsets_N1[0] != 0 or offsets_N1[-1] != total:
                return f"offsets run from {offsets_N1[0]} to {offsets_N1[-1]} over {total} entries"
            if not (offsets_N1[1:] > offsets_N1[:-1]).all():
                return "offsets that do not ascend: a sentence without words or pieces"
        pieces_N, words_N = np.diff(self.piece_offsets_N1), np.diff(self.word_offsets_N1)
        if (pieces_N < words_N).any() or int(pieces_N.max()) + 2 > max_pieces:
            return f"a sentence with fewer pieces than words or over {max_pieces} pieces"
        lowest = int(self.piece_ids_T.min()) if self.piece_ids_T.dtype.kind == "i" else 0
        highest = int(self.piece_ids_T.max())
        if lowest < 0 or highest >= vocabulary_size:
            return f"piece id {lowest if lowest < 0 else highest} in a vocabulary of {vocabulary_size}"
        starts_N, last_N = self.word_offsets_N1[:-1], self.word_offsets_N1[1:] - 1
        ascends_W = self.first_pieces_W[1:] > self.first_pieces_W[:-1]
        ascends_W[last_N[:-1]] = True  # to the next sentence's first word
        if (
            self.first_pieces_W[starts_N].any()
            or not ascends_W.all()
            or (self.first_pieces_W[last_N] >= pieces_N).any()
        ):
            return "first pieces of words that do not ascend from 0 inside their sentence"
        return None


def _array(data: bytes, member: zipfile.ZipInfo, types: Sequence[bytes]) -> np.ndarray:
    """An array of a block as a view of its bytes. np.load would take any type and shape, and what is compressed."""
    name = member.filename
    if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
        raise DataError(f"not a block of sentences: {name} is compressed")
    try:
        mark, name_bytes, extra_bytes = _LOCAL_HEADER.unpack_from(data, member.header_offset)
        start = member.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
        end = start + member.file_size
        (header_bytes,) = struct.unpack_from("<H", data, start + len(_NPY_MAGIC))
    except struct.error:
        raise DataError(f"not a block of sentences: {name} is cut short") from None
    body = start + len(_NPY_MAGIC) + 2 + header_bytes
    header = _NPY_HEADER.fullmatch(data, start + len(_NPY_MAGIC) + 2, body)
    if mark != b"PK\x03\x04" or not data.startswith(_NPY_MAGIC, start) or header is None or header[1] not in types:
        raise DataError(
            f"not a block of sentences: {name} is not an array of type {' or '.join(t.decode() for t in types)} "
            "in one dimension"
        )
    dtype, count = np.dtype(header[1].decode()), int(header[2])
    if body + count * dtype.itemsize != end or end > len(data):
        raise DataError(f"not a block of sentences: {name} has {end - body:,} bytes for {count:,} numbers")
    return np.frombuffer(data, dtype, count, body)


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
                        sha256=hashlib.sha256(data).hexdigest(),
                    )
                )
                offset += -(-len(data) // TAR_BLOCK_BYTES) * TAR_BLOCK_BYTES + TAR_BLOCK_BYTES
        digest, size = file_sha256(written), written.stat().st_size
    return ShardEntry(name=path.name, sha256=digest, bytes=size, blocks=BlockTable.of(entries))
