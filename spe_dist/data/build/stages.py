"""What worker processes do: parts of text -> sorted runs of sentences in words -> shards of blocks in pieces."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from spe_dist.data.build.reading import TextReader
from spe_dist.data.build.sorted_runs import bin_sizes, read_run, write_run
from spe_dist.data.shards.blocks import Block, write_shard
from spe_dist.data.shards.manifest import BlockEntry, ShardEntry
from spe_dist.data.text.files import Part
from spe_dist.data.text.lines import Skips
from spe_dist.data.text.vocabulary import PieceEncoder
from spe_dist.utils.files import file_sha256, write_atomically
from spe_dist.utils.randomness import keys

MIN_WORDS = 3
TOO_SHORT = f"sentences under {MIN_WORDS} words"
TOO_LONG = "sentences over the limit of pieces"
WITHOUT_PIECES = "words without pieces (control characters), dropped"
UNKNOWN_WORDS = "words with [UNK] pieces, kept"
SPECIAL_WRITTEN = "sentences in which a special token is written, taken as text"
_SPECIAL = re.compile(r"\[(?:MASK|CLS|SEP|PAD|UNK)\]")


@dataclass(frozen=True)
class PartSettings:
    """What a part's runs depend on, besides the part."""

    reader: TextReader
    seed: int
    held_out: float
    count_words: bool  # for training a vocabulary
    folder: Path


@dataclass(frozen=True)
class ShardTask:
    """One shard to be made: the runs and the range of keys that it is made of."""

    name: str
    split: str
    sentences: int  # before those without enough words or with too many pieces are skipped
    n_parts: int
    bins: tuple[int, int]
    first_block: int
    blocks: int
    max_pieces: int
    parts_folder: Path
    tokenizer_folder: Path
    output: Path
    record: Path


def is_held_out(text: str, share: float) -> bool:
    """Whether a sentence is held out: by a hash of its text without case, spaces and Unicode's variants of letters.

    Equal sentences, tokenised or not, are on the same side in every corpus.
    """
    normalised = "".join(unicodedata.normalize("NFKC", text).casefold().split())
    digest = hashlib.blake2b(normalised.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2.0**64


def run_path(folder: Path, part: int, split: str) -> Path:
    return folder / f"{part:06d}.{split}"


def record_path(folder: Path, part: int) -> Path:
    return folder / f"{part:06d}.json"


def make_runs(task: tuple[Part, PartSettings]) -> dict[str, Any]:
    """Split a part into words and write its runs; the record is written last and returned."""
    part, settings = task
    skips, noticed, word_counts = Skips(), Counter[str](), Counter[str]()
    texts: dict[str, list[str]] = {"train": [], "held_out": []}
    numbers: dict[str, list[int]] = {"train": [], "held_out": []}
    for number, (sentence, words) in enumerate(settings.reader.sentences(part, skips, noticed)):
        if len(words) < MIN_WORDS:
            skips.counts[TOO_SHORT] += 1
            continue
        split = "held_out" if is_held_out(sentence, settings.held_out) else "train"
        texts[split].append(" ".join(words))
        numbers[split].append(number)
        if "[" in sentence and _SPECIAL.search(sentence):
            noticed[SPECIAL_WRITTEN] += 1
        if settings.count_words and split == "train":
            word_counts.update(words)
    for split, split_texts in texts.items():
        keys_N = keys(settings.seed, part.index, np.array(numbers[split], dtype=np.int64))
        write_run(run_path(settings.folder, part.index, split), keys_N, split_texts)
    if settings.count_words:
        write_word_counts(run_path(settings.folder, part.index, "words"), word_counts)
    record = {
        "lines": skips.lines,
        "skipped": dict(skips.counts),
        "first_bad": skips.first_bad,
        "noticed": dict(noticed),
        "sentences": sum(len(split_texts) for split_texts in texts.values()),
    }
    write_atomically(record_path(settings.folder, part.index), json.dumps(record))
    return record


def write_word_counts(path: Path, counts: Counter[str]) -> None:
    write_atomically(path, "".join(f"{word}\t{count}\n" for word, count in counts.items()))


def read_word_counts(path: Path) -> Iterator[tuple[str, int]]:
    with open(path, encoding="utf-8", newline="\n") as file:
        for line in file:
            word, count = line.rsplit("\t", 1)
            yield word, int(count)


def count_bins(folder: Path, n_parts: int, split: str) -> np.ndarray:
    """int64 [BINS]: sentences of the split in each range of keys, over all parts."""
    return np.sum([bin_sizes(run_path(folder, part, split)) for part in range(n_parts)], axis=0)


def make_shard(task: ShardTask) -> dict[str, Any]:
    """Gather a shard's sentences from all runs, tokenise them into pieces and write them as blocks.

    Returns its record: the manifest's entry and what was skipped. The record is written last.
    """
    found = [read_run(run_path(task.parts_folder, part, task.split), *task.bins) for part in range(task.n_parts)]
    keys_N = np.concatenate([run_keys for run_keys, _ in found])
    texts = [text for _, run_texts in found for text in run_texts]
    del found
    encoder = _encoder(task.tokenizer_folder, file_sha256(task.tokenizer_folder / "tokenizer.json"))
    sentences = EncodedSentences(encoder, task.max_pieces)
    for i in np.argsort(keys_N, kind="stable"):
        sentences.add(texts[i].split(" "))
    entry = None
    if sentences.n_sentences:
        blocks = sentences.blocks(min(task.blocks, sentences.n_sentences))
        entry = write_shard(task.output / task.name, enumerate(blocks, task.first_block))
    record = {
        "entry": asdict(entry) if entry else None,
        "skipped": dict(sentences.skipped),
        "noticed": dict(sentences.noticed),
    }
    write_atomically(task.record, json.dumps(record))
    return record


def read_entry(record: dict[str, Any]) -> ShardEntry | None:
    """The manifest's entry of a shard's record; None where no sentence of it was kept."""
    entry = record["entry"]
    if entry is None:
        return None
    return ShardEntry(**{**entry, "blocks": tuple(BlockEntry(**block) for block in entry["blocks"])})


@lru_cache(maxsize=1)
def _encoder(tokenizer_folder: Path, sha256: str) -> PieceEncoder:
    """Kept from shard to shard; `sha256` tells it from another tokenizer that lay in the same folder before."""
    return PieceEncoder.from_folder(tokenizer_folder)


class EncodedSentences:
    """Sentences in pieces as they come, to be cut into blocks at the end."""

    def __init__(self, encoder: PieceEncoder, max_pieces: int) -> None:
        self._encoder = encoder
        self._max_pieces = max_pieces - 2
        self._ids: list[int] = []
        self._word_pieces: list[int] = []  # pieces of each word
        self._sentence_pieces: list[int] = []
        self._sentence_words: list[int] = []
        self.skipped: Counter[str] = Counter()
        self.noticed: Counter[str] = Counter()

    @property
    def n_sentences(self) -> int:
        return len(self._sentence_pieces)

    def add(self, words: Sequence[str]) -> None:
        pieces = self._encoder.pieces(words)
        if () in pieces:
            self.noticed[WITHOUT_PIECES] += pieces.count(())
            pieces = [word for word in pieces if word]
        if len(pieces) < MIN_WORDS:
            self.skipped[TOO_SHORT] += 1
            return
        ids = list(chain.from_iterable(pieces))
        if len(ids) > self._max_pieces:
            self.skipped[TOO_LONG] += 1
            return
        unknown = self._encoder.unknown_id
        if unknown in ids:
            self.noticed[UNKNOWN_WORDS] += sum(1 for word in pieces if unknown in word)
        self._ids += ids
        self._word_pieces += map(len, pieces)
        self._sentence_pieces.append(len(ids))
        self._sentence_words.append(len(pieces))

    def blocks(self, count: int) -> Iterable[Block]:
        """`count` blocks of equally many sentences, +-1."""
        id_type = np.uint16 if self._encoder.vocabulary_size <= 1 << 16 else np.int32
        first_type = np.uint8 if self._max_pieces <= 1 << 8 else np.int16
        ids_T = np.array(self._ids, dtype=id_type)
        pieces_N1, words_N1 = _borders(self._sentence_pieces), _borders(self._sentence_words)
        word_starts_W = _borders(self._word_pieces)[:-1]
        first_pieces_W = (word_starts_W - np.repeat(pieces_N1[:-1], self._sentence_words)).astype(first_type)
        cuts = [self.n_sentences * i // count for i in range(count + 1)]
        for a, b in pairwise(cuts):
            yield Block(
                first_sentence_id=0,
                piece_ids_T=ids_T[pieces_N1[a] : pieces_N1[b]],
                piece_offsets_N1=(pieces_N1[a : b + 1] - pieces_N1[a]).astype(np.int32),
                first_pieces_W=first_pieces_W[words_N1[a] : words_N1[b]],
                word_offsets_N1=(words_N1[a : b + 1] - words_N1[a]).astype(np.int32),
            )


def _borders(lengths: Sequence[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.array(lengths, dtype=np.int64))])
