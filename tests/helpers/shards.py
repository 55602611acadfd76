"""A small corpus of numbered sentences, and what is found in shards made of it."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from spe_dist.data.shards.store import ShardStore
from spe_dist.data.text.vocabulary import SPECIAL_TOKENS

NAMES = ["ada", "bo", "cy", "dot", "eve"]
PIECES = [*SPECIAL_TOKENS, *NAMES, "saw", "and", "the", ".", ",", *"0123456789", *(f"##{d}" for d in "0123456789")]


def numbered_sentences(count: int, seed: int = 0) -> list[str]:
    """Different tokenised sentences; the number is one word of several pieces."""
    rng = random.Random(seed)
    return [f"{rng.choice(NAMES)} saw {i} and the {rng.choice(NAMES)} ." for i in range(count)]


def sentences_of(folder: Path, split: str) -> list[str]:
    """All sentences as words, by the folder's own tokenizer, in the order of their ids."""
    store = ShardStore.open(str(folder), split)
    pieces = (folder / "tokenizer" / "vocab.txt").read_text().split("\n")
    found = []
    for index in range(len(store.block_sentences)):
        block = store.block(index)
        for i in range(block.n_sentences):
            ids = block.piece_ids_T[block.piece_offsets_N1[i] : block.piece_offsets_N1[i + 1]]
            firsts = block.first_pieces_W[block.word_offsets_N1[i] : block.word_offsets_N1[i + 1]]
            words = np.split(ids, firsts[1:])
            found.append(" ".join("".join(pieces[p].removeprefix("##") for p in word) for word in words))
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
