"""Train a WordPiece vocabulary on counted words; equal counts give an equal vocabulary.

The trainer of the tokenizers package numbers letters in the order of a randomly seeded hash table and breaks ties by
those numbers. It is given all letters beforehand, in a fixed order, as if they were special tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from spe_dist.data.text.vocabulary import SPECIAL_TOKENS, tokenizer_from_pieces
from spe_dist.errors import ConfigError

MAX_LETTERS = 1_000
MAX_TRAINING_WORDS = 20_000_000  # larger counts are scaled down: the vocabulary hardly changes, the time does
MIN_PAIR_COUNT = 2
WORDS_A_LINE = 1_000


def train_vocabulary(word_counts: Mapping[str, int], pieces: int, do_lower_case: bool = False) -> Any:
    """A tokenizer with at most `pieces` pieces, special tokens included (fewer where the text has no more)."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    letters, counts = _alphabet(_normalised(word_counts, do_lower_case))
    if pieces < len(letters) + len(SPECIAL_TOKENS):
        raise ConfigError(
            f"train_vocab={pieces} is less than the {len(letters)} letters of the text and {len(SPECIAL_TOKENS)} "
            f"special tokens; choose at least {len(letters) + len(SPECIAL_TOKENS)}, better some thousands"
        )
    trained = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    trained.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=pieces,
        min_frequency=MIN_PAIR_COUNT,
        special_tokens=[*SPECIAL_TOKENS, *letters],
        show_progress=False,
        continuing_subword_prefix="##",
    )
    trained.train_from_iterator(_lines(counts), trainer)
    vocabulary = trained.get_vocab()
    return tokenizer_from_pieces(sorted(vocabulary, key=vocabulary.__getitem__), do_lower_case)


def _normalised(word_counts: Mapping[str, int], do_lower_case: bool) -> Counter[str]:
    """Counts of what BERT's normaliser and pre-tokeniser make of the words."""
    backend = tokenizer_from_pieces(SPECIAL_TOKENS, do_lower_case).backend_tokenizer
    counts: Counter[str] = Counter()
    for word, count in word_counts.items():
        if word.isascii() and word.isalnum():
            counts[word.lower() if do_lower_case else word] += count
        else:
            for part, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(word)):
                counts[part] += count
    return counts


def _alphabet(counts: Mapping[str, int]) -> tuple[list[str], dict[str, int]]:
    """(pieces of one letter, first and continuing, in a fixed order; the words that need no other letters, scaled)."""
    letter_counts: Counter[str] = Counter()
    for word, count in counts.items():
        for letter in word:
            letter_counts[letter] += count
    kept = set(sorted(letter_counts, key=lambda letter: (-letter_counts[letter], letter))[:MAX_LETTERS])
    words = {word: counts[word] for word in sorted(counts) if kept.issuperset(word)}
    scale = min(1.0, MAX_TRAINING_WORDS / max(1, sum(words.values())))
    words = {word: round(count * scale) for word, count in words.items()}
    continuing = {letter for word in counts for letter in word[1:]} & kept
    return [*sorted(kept), *(f"##{letter}" for letter in sorted(continuing))], words


def _lines(counts: Mapping[str, int]) -> Iterator[str]:
    line: list[str] = []
    for word, count in counts.items():
        while count > 0:
            taken = min(count, WORDS_A_LINE - len(line))
            line += [word] * taken
            count -= taken
            if len(line) == WORDS_A_LINE:
                yield " ".join(line)
                line.clear()
    yield " ".join(line)
