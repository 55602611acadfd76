"""A sentence as the encoder reads it: whole, or cut into windows that overlap by about half.

Each word is decided by the window in which it stands farthest from a cut, a span or a pair of spans by the window that
holds it whole and in which it stands farthest from a cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

NO_CUT = 1 << 30  # distance to a border of the sentence, which cuts nothing off

Span = tuple[int, int]
Pieces = tuple[int, ...]  # ids of the word pieces of one word


@dataclass(frozen=True)
class Window:
    """Words first_word .. end_word of a sentence as the encoder reads them; it decides words own_first .. own_end."""

    first_word: int
    end_word: int
    own_first: int
    own_end: int
    piece_ids: list[int]  # with [CLS] and [SEP], and the document context
    first_pieces: list[int]  # position in `piece_ids` of the first piece of each of the window's words

    def holds(self, first: int, end: int) -> bool:
        """Whether words first .. end are all in it."""
        return self.first_word <= first and end <= self.end_word


def cut_into_windows(
    words: Sequence[Pieces], most_pieces: int, cls_id: int, sep_id: int, before: Sequence[int], behind: Sequence[int]
) -> tuple[Window, ...]:
    """The windows of a sentence, one where it is short enough.

    Args:
        words: the pieces of each word, no word with more than `most_pieces`.
        most_pieces: pieces of words in a window.
        cls_id, sep_id: the pieces at the start and at the end of each window.
        before, behind: document context, which a sentence of one window is read with.
    """
    borders = list(accumulate(map(len, words), initial=0))
    spans = _window_spans(borders, most_pieces)
    ids = [piece for pieces in words for piece in pieces]
    n_words = len(words)
    if len(spans) == 1:
        shift = 1 + len(before)
        first_pieces = [border + shift for border in borders[:-1]]
        return (Window(0, n_words, 0, n_words, [cls_id, *before, *ids, *behind, sep_id], first_pieces),)
    word_spans = np.stack([np.arange(n_words), np.arange(1, n_words + 1)], axis=1)
    own = np.searchsorted(best_windows(word_spans, np.array(spans), n_words), np.arange(len(spans) + 1))
    return tuple(
        Window(
            first,
            end,
            int(own[i]),
            int(own[i + 1]),
            [cls_id, *ids[borders[first] : borders[end]], sep_id],
            [border - borders[first] + 1 for border in borders[first:end]],
        )
        for i, (first, end) in enumerate(spans)
    )


def _window_spans(borders: Sequence[int], most_pieces: int) -> list[Span]:
    """Word spans of the windows; `borders` are the borders of words in pieces."""
    n_words = len(borders) - 1
    if borders[-1] <= most_pieces:
        return [(0, n_words)]
    starts = np.array(borders)
    spans: list[Span] = []
    first = 0
    while True:
        end = int(np.searchsorted(starts, starts[first] + most_pieces, side="right")) - 1
        if end == n_words:  # the last window: as long as it can be
            first = int(np.searchsorted(starts, starts[-1] - most_pieces))
            return [*spans, (first, n_words)]
        spans.append((first, end))
        half = int(np.searchsorted(starts, starts[first] + most_pieces // 2))
        first = min(max(first + 1, half), end)


def best_windows(spans: np.ndarray, windows: np.ndarray, n_words: int) -> np.ndarray:
    """[S] for spans [S, 2] and windows [N, 2]: the window that holds the span, farthest from a cut; -1 if none does."""
    left = np.where(windows[:, 0] == 0, NO_CUT, spans[:, :1] - windows[:, 0])
    right = np.where(windows[:, 1] == n_words, NO_CUT, windows[:, 1] - spans[:, 1:])
    held = (spans[:, :1] >= windows[:, 0]) & (spans[:, 1:] <= windows[:, 1])
    margin = np.where(held, np.minimum(left, right), -1)
    return np.where(held.any(axis=1), margin.argmax(axis=1), -1)
