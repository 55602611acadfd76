"""Blocks and tars: what is written comes back, by any reader, in bytes that depend on the arrays alone."""

from __future__ import annotations

import tarfile
import zlib
from dataclasses import replace

import numpy as np
import pytest

from spe_dist.data.shards.blocks import ARRAYS, Block, write_shard
from spe_dist.errors import DataError
from spe_dist.utils.files import file_sha256


def make_block(sentences: list[list[list[int]]]) -> Block:
    """Sentences as words as piece ids."""
    pieces = [[piece for word in words for piece in word] for words in sentences]
    firsts = [int(np.sum([len(w) for w in words[:i]], dtype=int)) for words in sentences for i in range(len(words))]
    return Block(
        first_sentence_id=0,
        piece_ids_T=np.array([piece for sentence in pieces for piece in sentence], dtype=np.uint16),
        piece_offsets_N1=np.cumsum([0, *map(len, pieces)]).astype(np.int32),
        first_pieces_W=np.array(firsts, dtype=np.uint8),
        word_offsets_N1=np.cumsum([0, *map(len, sentences)]).astype(np.int32),
    )


BLOCKS = [make_block([[[5], [6, 7], [8]], [[9, 10, 11], [5], [6]]]), make_block([[[7], [8], [9], [10, 11]]])]


@pytest.fixture
def shard(tmp_path):
    return tmp_path / "train-00000.tar", write_shard(tmp_path / "train-00000.tar", list(enumerate(BLOCKS, 3)))


def arrays(block: Block) -> list[np.ndarray]:
    return [block.piece_ids_T, block.piece_offsets_N1, block.first_pieces_W, block.word_offsets_N1]


def test_a_block_comes_back_from_its_bytes_with_its_types():
    for block in BLOCKS:
        found = Block.from_bytes(block.to_bytes(), 17)
        assert found.first_sentence_id == 17 and found.n_sentences == block.n_sentences
        for a, b in zip(arrays(found), arrays(block), strict=True):
            assert a.dtype == b.dtype and np.array_equal(a, b)


def test_equal_blocks_give_equal_bytes_and_shards(tmp_path, shard):
    path, entry = shard
    assert BLOCKS[0].to_bytes() == Block.from_bytes(BLOCKS[0].to_bytes()).to_bytes()
    assert write_shard(tmp_path / "again.tar", list(enumerate(BLOCKS, 3))).sha256 == entry.sha256 == file_sha256(path)


def test_the_entry_tells_where_each_block_lies(shard):
    path, entry = shard
    with tarfile.open(path) as tar:
        members = {member.name: member for member in tar}
    assert list(members) == ["00000003.npz", "00000004.npz"]
    for block, found in zip(BLOCKS, entry.blocks, strict=True):
        assert (found.offset, found.bytes) == (members[found.member].offset_data, members[found.member].size)
        data = path.read_bytes()[found.offset : found.offset + found.bytes]
        assert data == block.to_bytes() and zlib.crc32(data) == found.crc32
        assert (found.sentences, found.words, found.pieces) == (block.n_sentences, block.n_words, block.n_pieces)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_webdataset_reads_and_decodes_a_shard(shard):
    webdataset = pytest.importorskip("webdataset")
    samples = list(webdataset.WebDataset(str(shard[0]), shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == ["00000003", "00000004"]
    for sample, block in zip(samples, BLOCKS, strict=True):
        for name, array in zip(ARRAYS, arrays(block), strict=True):
            assert np.array_equal(sample["npz"][name], array)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, None),
        ({"piece_ids_T": np.full(10, 12, np.uint16)}, "piece id 12"),
        ({"piece_offsets_N1": np.array([0, 4, 9], np.int32)}, "offsets run"),
        ({"word_offsets_N1": np.array([0, 6], np.int32)}, "2 sentences by pieces, 1 by words"),
        ({"word_offsets_N1": np.array([0, 0, 6], np.int32)}, "without words"),
        ({"first_pieces_W": np.array([0, 1, 1, 0, 3, 4], np.uint8)}, "ascend"),
        ({"first_pieces_W": np.array([0, 1, 3, 1, 3, 4], np.uint8)}, "ascend"),
        ({"first_pieces_W": np.array([0, 1, 3, 0, 3, 6], np.uint8)}, "ascend"),
    ],
)
def test_a_block_that_contradicts_the_format_is_named(change, problem):
    block = make_block([[[5], [6, 7], [8, 8]], [[9, 10, 11], [5], [6]]])
    found = replace(block, **change).problem(vocabulary_size=12, max_pieces=7)
    assert found is None if problem is None else problem in found


def test_bytes_that_are_no_block_are_an_error():
    for data in (b"", b"no zip", BLOCKS[0].to_bytes()[:-30]):
        with pytest.raises(DataError, match="not a block"):
            Block.from_bytes(data)
