"""Sentences that are left out of training, and those that take their places.

The order stays what it is: in the place of a sentence that is left out stands the next one in file order that is not
(after the last comes the first). So every step has as many sentences as before, on any number of ranks.

Legend of the shape suffixes: N slots asked for, L sentences that are left out
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Replacements:
    """Maps positions in file order, 0 .. n_sentences - 1, to those that are trained in their places."""

    def __init__(self, left_out: Sequence[int] | np.ndarray, n_sentences: int) -> None:
        """`left_out`: positions, in any order; at least one sentence must be left."""
        self._left_out_L = np.unique(np.asarray(left_out, dtype=np.int64))
        count = len(self._left_out_L)
        assert count < n_sentences, f"{count} of {n_sentences} sentences left out"
        assert not count or (self._left_out_L[0] >= 0 and self._left_out_L[-1] < n_sentences)
        following_L = self._left_out_L + 1
        for i in reversed(range(count - 1)):
            if following_L[i] == self._left_out_L[i + 1]:
                following_L[i] = following_L[i + 1]
        wraps_L = following_L >= n_sentences
        first = 0  # the first sentence that is not left out
        while first < count and self._left_out_L[first] == first:
            first += 1
        following_L[wraps_L] = first
        self._following_L = following_L

    def __call__(self, sentences_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(the positions that are trained, whether each is another than asked for)."""
        if not len(self._left_out_L):
            return sentences_N, np.zeros(len(sentences_N), dtype=bool)
        place_N = np.searchsorted(self._left_out_L, sentences_N)
        place_N[place_N == len(self._left_out_L)] = 0
        replaced_N = self._left_out_L[place_N] == sentences_N
        return np.where(replaced_N, self._following_L[place_N], sentences_N), replaced_N
