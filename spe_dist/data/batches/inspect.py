"""One sentence as text: its spans, permutation, token boundary targets and both views, under (seed, epoch, settings).

Legend of the shape suffixes: as in `corruption` and `packed`
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spe_dist.config.pretraining import CorruptionConfig
from spe_dist.data.batches.corruption import (
    ORDERS,
    SPANS,
    Corrupted,
    SentenceBatch,
    check_corruption,
    corrupt,
    tbo_budgets,
)
from spe_dist.data.batches.packed import PackedBatch
from spe_dist.data.batches.packing import pack
from spe_dist.data.batches.stream import special_pieces
from spe_dist.data.shards.reader import SentenceReader
from spe_dist.data.shards.store import ShardStore
from spe_dist.data.text.vocabulary import load_tokenizer, read_vocabulary, vocabulary_pieces
from spe_dist.utils.tables import aligned

SPAN_NAMES = ("L", "s1", "M", "s2", "R")
PART_NAMES = ("first", "middle", "last")


def describe_sentence(
    store: ShardStore, sentence_id: int, corruption: CorruptionConfig, seed: int = 0, epoch: int = 0
) -> str:
    """The sentence with this id, as training with this seed sees it in this epoch; several lines of text.

    Raises:
        DataError: the store's split has no such id.
        ConfigError: a setting is out of range.
    """
    check_corruption(corruption)
    block, index = store.block_of(sentence_id)
    sentences = SentenceReader(store, 1).read(np.array([block]), np.array([index]))
    corrupted = corrupt(sentences, np.array([sentence_id]), epoch, seed, corruption)
    batch = pack(corrupted, special_pieces(store.manifest), corruption.view_masks)
    pieces = _pieces(store)
    words = _words(sentences.piece_ids_T, sentences.first_piece_W, pieces)
    n_pieces = len(sentences.piece_ids_T)
    rows = [
        ("sentence", f"{sentence_id} (split {store.split}, block {block}, place {index}), seed {seed}, epoch {epoch}"),
        ("size", f"{len(words)} words, {n_pieces} pieces"),
        ("text", " ".join(words)),
        ("pieces", " ".join(pieces[i] for i in sentences.piece_ids_T)),
        *_span_rows(corrupted, words),
        *_permutation_rows(corrupted, words),
        *_target_rows(corrupted, sentences, pieces, corruption),
        *_view_rows(batch, pieces),
    ]
    return "\n".join(aligned(rows, "<"))


def _pieces(store: ShardStore) -> Sequence[str]:
    """Piece texts by id, from the tokenizer beside the shards."""
    folder = store.tokenizer_folder()
    if (folder / "vocab.txt").is_file():
        return read_vocabulary(folder / "vocab.txt")
    return vocabulary_pieces(load_tokenizer(folder))


def _words(piece_ids: np.ndarray, first_pieces: np.ndarray, pieces: Sequence[str]) -> list[str]:
    parts = np.split(piece_ids, first_pieces[1:])
    return ["".join(pieces[i].removeprefix("##") if n else pieces[i] for n, i in enumerate(part)) for part in parts]


def _span_rows(corrupted: Corrupted, words: list[str]) -> list[tuple[str, str]]:
    rows, start = [], 0
    for name, length in zip(SPAN_NAMES, corrupted.span_words_N5[0].tolist(), strict=True):
        end = start + length
        rows.append((f"span {name}", f"words [{start}, {end}) {' '.join(words[start:end])}"))
        start = end
    return rows


def _permutation_rows(corrupted: Corrupted, words: list[str]) -> list[tuple[str, str]]:
    """For each copy and permuted span: the label, what it means, and the words before and after."""
    rows = []
    ends = np.cumsum(corrupted.span_words_N5[0])
    for copy, span in np.argwhere(corrupted.orders_CN5[:, 0] >= 0).tolist():
        label = int(corrupted.orders_CN5[copy, 0, span])
        order = ", ".join(PART_NAMES[part] for part in ORDERS[label])
        places = slice(int(ends[span] - corrupted.span_words_N5[0, span]), int(ends[span]))
        shown = corrupted.source_word_V[copy * len(words) :][places]
        after = " ".join(words[word] for word in shown)
        rows.append((f"permuted {SPAN_NAMES[span]}", f"label {label} ({order}): {after}"))
        if copy:
            rows[-1] = (rows[-1][0], f"copy {copy}, {rows[-1][1]}")
    return rows or [("permuted", "none: no span is wide enough")]


def _target_rows(
    corrupted: Corrupted, sentences: SentenceBatch, pieces: Sequence[str], config: CorruptionConfig
) -> list[tuple[str, str]]:
    budget = int(tbo_budgets(np.diff(sentences.piece_borders_N1), config)[0])
    rows = [("targets", f"at most {budget} pieces")]
    for word in np.flatnonzero(corrupted.tbo_words_W).tolist():
        start, end = corrupted.first_piece_V1[word : word + 2].tolist()
        first, *rest = (pieces[i] for i in corrupted.piece_ids_U[start:end])
        rows.append(("", f"word {word} after the permutation: {first} -> {' '.join(rest)}"))
    return rows


def _view_rows(batch: PackedBatch, pieces: Sequence[str]) -> list[tuple[str, str]]:
    """The sequences with | between their spans, as the model sees them."""
    rows = []
    token_borders = batch.cu_seqlens_Q1.tolist()
    word_borders, first_pieces = batch.span_borders_S1.tolist(), batch.first_piece_W.tolist()
    for sequence in range(batch.n_sequences):
        end = token_borders[sequence + 1] - 1
        starts = [
            first_pieces[word] if word < word_borders[SPANS * (sequence + 1)] else end
            for word in word_borders[SPANS * sequence : SPANS * (sequence + 1)]
        ]
        texts = [pieces[i] for i in batch.piece_ids_T.tolist()]
        spans = [" ".join(texts[a:b]) for a, b in zip(starts, [*starts[1:], end], strict=True)]
        label = ("span-pair view", "context view")[sequence] if sequence < 2 else "further copy"
        rows.append((label, f"{texts[token_borders[sequence]]} {' | '.join(spans)} {texts[end]}"))
    return rows
