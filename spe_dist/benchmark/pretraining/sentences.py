"""Made-up sentences in the form of a store of shards: no text, no download, the lengths of real ones.

Sentences are log-normal in pieces, words have one piece or a few, and piece ids are drawn with the frequencies of
words in text (Zipf). Every block is a pure function of its number.

Legend of the shape suffixes: N sentences, W words, T pieces; N1 = N + 1 borders
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from spe_dist.data.shards.blocks import Block
from spe_dist.data.shards.manifest import Manifest, TokenizerEntry
from spe_dist.utils.ragged import borders

BLOCK_SENTENCES = 1_000
BLOCKS = 64
SPECIAL_PIECES = 5  # ids 0 to 4: padding, unknown, [CLS], [SEP], [MASK]
LENGTH_SIGMA = 0.45  # of the logarithm of a sentence's pieces
FEWEST_WORDS = 3
PIECES_OF_A_WORD = (0.80, 0.13, 0.05, 0.02)  # share of words of 1, 2, 3 and 4 pieces
MEAN_PIECES_OF_A_WORD = sum(share * count for count, share in enumerate(PIECES_OF_A_WORD, 1))


class MadeUpSentences:
    """64,000 sentences of `pieces` in the mean and at most `max_pieces`, [CLS] and [SEP] included in both."""

    first_sentence_id = 0
    lookahead_sentences = 0

    def __init__(self, vocabulary: int, pieces: float, max_pieces: int) -> None:
        assert vocabulary > SPECIAL_PIECES
        self.mean_words = max(FEWEST_WORDS, (pieces - 2) / MEAN_PIECES_OF_A_WORD)
        self.max_pieces = max_pieces
        self.block_sentences = np.full(BLOCKS, BLOCK_SENTENCES, dtype=np.int64)
        self.n_sentences = BLOCKS * BLOCK_SENTENCES
        ranks = np.arange(1, vocabulary - SPECIAL_PIECES + 1)
        self._cumulative = np.cumsum(1 / ranks) / np.sum(1 / ranks)
        self.manifest = Manifest(
            tokenizer=TokenizerEntry("wordpiece", "made up", False, {}),
            vocabulary_size=vocabulary,
            vocabulary_sha256="",
            cls_id=2,
            sep_id=3,
            mask_id=4,
            pad_id=0,
            unk_id=1,
            max_pieces=max_pieces,
            splits={"train": ()},
        )

    def has_ranges(self) -> bool:
        """There are no shards."""
        return True

    def prefetch(self, blocks: Iterable[int]) -> None:
        """Nothing: blocks are made when they are read."""

    def block(self, index: int) -> Block:
        generator = np.random.default_rng(index)
        scale = np.log(self.mean_words) - LENGTH_SIGMA**2 / 2
        words_N = np.rint(generator.lognormal(scale, LENGTH_SIGMA, BLOCK_SENTENCES)).astype(np.int64)
        words_N = np.maximum(words_N, FEWEST_WORDS)
        word_borders_N1 = borders(words_N)
        sizes_W = generator.choice(len(PIECES_OF_A_WORD), size=word_borders_N1[-1], p=PIECES_OF_A_WORD) + 1
        # Words that would make a sentence too long are cut off its end.
        first_W = borders(sizes_W)[:-1] - np.repeat(borders(sizes_W)[word_borders_N1[:-1]], words_N)
        fits_W = first_W + sizes_W <= self.max_pieces - 2
        sentence_W = np.repeat(np.arange(BLOCK_SENTENCES), words_N)[fits_W]
        sizes_W, first_W = sizes_W[fits_W], first_W[fits_W]
        pieces_N = np.bincount(sentence_W, weights=sizes_W, minlength=BLOCK_SENTENCES).astype(np.int64)
        piece_ids_T = SPECIAL_PIECES + np.searchsorted(self._cumulative, generator.random(pieces_N.sum()))
        return Block(
            first_sentence_id=index * BLOCK_SENTENCES,
            piece_ids_T=piece_ids_T.astype(np.int32),
            piece_offsets_N1=borders(pieces_N).astype(np.int32),
            first_pieces_W=first_W.astype(np.int16),
            word_offsets_N1=borders(np.bincount(sentence_W, minlength=BLOCK_SENTENCES)).astype(np.int32),
        )
