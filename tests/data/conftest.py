"""Stores of random sentences for the tests of order, stream and corruption, in memory and on disk; text to shard."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from shards import PIECES, numbered_sentences

from spe_dist.data.shards.blocks import Block, write_shard
from spe_dist.data.shards.manifest import Manifest, TokenizerEntry
from spe_dist.data.text import files as text_files
from spe_dist.utils.files import file_sha256

SPECIAL = {"pad_id": 0, "unk_id": 1, "cls_id": 2, "sep_id": 3, "mask_id": 4}
VOCABULARY = 500


def random_block(sentences: int, first_sentence_id: int, seed: int) -> Block:
    """Sentences of 3..30 words, a third of them of 2..5 pieces; piece ids are random."""
    rng = np.random.default_rng((seed, first_sentence_id))
    words = rng.integers(3, 31, sentences)
    total = int(words.sum())
    word_pieces = np.where(rng.random(total) < 1 / 3, rng.integers(2, 6, total), 1)
    word_offsets = np.concatenate([[0], np.cumsum(words)])
    first_pieces = np.concatenate([[0], np.cumsum(word_pieces)])
    piece_offsets = first_pieces[word_offsets]
    inside = first_pieces[:-1] - np.repeat(piece_offsets[:-1], words)
    return Block(
        first_sentence_id=first_sentence_id,
        piece_ids_T=rng.integers(5, VOCABULARY, int(piece_offsets[-1])).astype(np.uint16),
        piece_offsets_N1=piece_offsets.astype(np.int32),
        first_pieces_W=inside.astype(np.uint8),
        word_offsets_N1=word_offsets.astype(np.int32),
    )


@dataclass
class MemoryStore:
    """What the stream needs of a ShardStore, made up on demand; `reads` counts block reads."""

    block_sentences: np.ndarray
    first_sentence_id: int = 0
    seed: int = 0
    reads: int = 0
    lookahead_sentences: int = 0

    def __post_init__(self) -> None:
        self.block_sentences = np.asarray(self.block_sentences, dtype=np.int64)
        self.n_sentences = int(self.block_sentences.sum())
        self.prefetched: list[int] = []
        self.manifest = SimpleNamespace(**SPECIAL, vocabulary_size=VOCABULARY)

    def prefetch(self, blocks: Iterable[int]) -> None:
        self.prefetched += blocks

    def block(self, index: int) -> Block:
        self.reads += 1
        first = self.first_sentence_id + int(self.block_sentences[:index].sum())
        return random_block(int(self.block_sentences[index]), first, self.seed)


@pytest.fixture(scope="session")
def memory_store() -> Callable[..., MemoryStore]:
    """`memory_store(block_sentences, first_sentence_id=0, seed=0)`."""
    return MemoryStore


@pytest.fixture(scope="session")
def random_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of shards with the sentences of MemoryStore([100, 90, 80, 100, 30]), and 50 held out. Read only."""
    folder = tmp_path_factory.mktemp("random_shards")
    sizes = {"train": [[100, 90, 80], [100, 30]], "held_out": [[50]]}
    splits, index, first = {}, 0, 0
    for split, shards in sizes.items():
        entries = []
        for number, blocks in enumerate(shards):
            members = []
            for sentences in blocks:
                members.append((index, random_block(sentences, first, 0)))
                index, first = index + 1, first + sentences
            entries.append(write_shard(folder / f"{split}-{number:05d}.tar", members))
        splits[split] = tuple(entries)
    vocabulary = folder / "tokenizer" / "vocab.txt"
    vocabulary.parent.mkdir()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary.write_text("\n".join([*special, *(f"w{n}" for n in range(5, VOCABULARY))]) + "\n")
    manifest = Manifest(
        tokenizer=TokenizerEntry("wordpiece", "random", False, {"vocab.txt": file_sha256(vocabulary)}),
        vocabulary_size=VOCABULARY,
        vocabulary_sha256="0" * 64,
        max_pieces=200,
        splits=splits,
        **SPECIAL,
    )
    manifest.save(folder)
    return folder


@pytest.fixture
def vocabulary(tmp_path) -> str:
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    return str(tmp_path / "vocab.txt")


@pytest.fixture
def corpus(tmp_path) -> list[str]:
    """Two files of 2,000 sentences with bad ones between."""
    lines = numbered_sentences(2_000)
    lines[500] = ""
    (tmp_path / "a.txt").write_text("\n".join(lines[:1_200]) + "\n")
    with gzip.open(tmp_path / "b.txt.gz", "wt") as file:
        file.write("\n".join(lines[1_200:]))
    return [str(tmp_path / "a.txt"), str(tmp_path / "b.txt.gz")]


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of 4 KiB, so that a small corpus has about twenty."""
    monkeypatch.setattr(text_files, "PART_BYTES", 4 << 10)
