"""Folders of made-up shards: an index of as many blocks as one likes, or a few blocks that can be read.

Legend of the shape suffixes: B blocks
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from spe_dist.benchmark.pretraining.sentences import BLOCK_SENTENCES, MadeUpSentences
from spe_dist.data.shards.blocks import Block, write_shard
from spe_dist.data.shards.index import DIGEST, TAR_BLOCK_BYTES, BlockTable
from spe_dist.data.shards.manifest import Manifest, ShardEntry, TokenizerEntry

VOCABULARY = 28_996
MAX_PIECES = 128
BLOCK_BYTES = 82_432  # of 1,000 sentences of 26 pieces
SHARD_BLOCKS = 1_000


def manifest_of(shards: tuple[ShardEntry, ...]) -> Manifest:
    """A manifest of made-up shards: all of them to train on."""
    return Manifest(
        tokenizer=TokenizerEntry("wordpiece", "made up", False, {}),
        vocabulary_size=VOCABULARY,
        vocabulary_sha256="0" * 64,
        cls_id=2,
        sep_id=3,
        mask_id=4,
        pad_id=0,
        unk_id=1,
        max_pieces=MAX_PIECES,
        splits={"train": shards, "held_out": ()},
    )


def write_index(folder: Path, blocks: int) -> None:
    """Manifest and index of `blocks` blocks, 1,000 a shard; the shards themselves are not there."""
    stride_512 = -(-BLOCK_BYTES // TAR_BLOCK_BYTES) + 1
    shards = []
    for first in range(0, blocks, SHARD_BLOCKS):
        numbers_B = np.arange(first, min(blocks, first + SHARD_BLOCKS))
        counts = {"sentences": BLOCK_SENTENCES, "words": 18 * BLOCK_SENTENCES, "pieces": 26 * BLOCK_SENTENCES}
        columns = {name: np.full_like(numbers_B, count) for name, count in (counts | {"bytes": BLOCK_BYTES}).items()}
        columns |= {"member": numbers_B, "offset_512": 1 + stride_512 * (numbers_B - first), "crc32": numbers_B}
        table = BlockTable.from_lists(columns | {name: numbers_B for name in DIGEST})
        shard_bytes = TAR_BLOCK_BYTES * stride_512 * (len(table) + 1)
        name = f"train-{first // SHARD_BLOCKS:05d}.tar"
        shards.append(ShardEntry(name, "0" * 64, shard_bytes, table))
    manifest_of(tuple(shards)).save(folder)


def write_shards(folder: Path, shards: int, blocks: int) -> None:
    """`shards` shards of `blocks` blocks of made-up sentences each, with manifest and index."""
    sentences = MadeUpSentences(VOCABULARY, 28, MAX_PIECES)
    entries = []
    for shard in range(shards):
        numbers = range(shard * blocks, (shard + 1) * blocks)
        members = ((number, _narrow(sentences, number)) for number in numbers)
        entries.append(write_shard(folder / f"train-{shard:05d}.tar", members))
    manifest_of(tuple(entries)).save(folder)


def _narrow(sentences: MadeUpSentences, number: int) -> Block:
    """A block in the types that shards have."""
    block = sentences.block(number)
    return replace(
        block, piece_ids_T=block.piece_ids_T.astype(np.uint16), first_pieces_W=block.first_pieces_W.astype(np.uint8)
    )
