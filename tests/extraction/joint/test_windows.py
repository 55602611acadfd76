"""Windows: every word is in one, overlaps are halves, and what a span or a word is read in is far from cuts."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spe_dist.extraction.joint.windows import best_windows, cut_into_windows


@given(st.lists(st.integers(1, 6), max_size=60), st.integers(6, 40))
def test_windows_hold_every_word_whole_and_decide_each_once(lengths: list[int], most_pieces: int) -> None:
    words = [tuple(range(10 * i, 10 * i + length)) for i, length in enumerate(lengths)]
    windows = cut_into_windows(words, most_pieces, -1, -2, [], [])
    decided = [word for window in windows for word in range(window.own_first, window.own_end)]
    assert decided == list(range(len(words)))
    for window in windows:
        own = [piece for word in words[window.first_word : window.end_word] for piece in word]
        assert window.piece_ids == [-1, *own, -2] and len(own) <= most_pieces
        assert window.holds(window.own_first, window.own_end) and not window.holds(window.first_word, len(words) + 1)
        assert [window.piece_ids[i] for i in window.first_pieces] == [
            word[0] for word in words[window.first_word : window.end_word]
        ]
    assert len(windows) == 1 or sum(lengths) > most_pieces


def test_windows_share_half_of_their_pieces_with_the_next() -> None:
    spans = [(w.first_word, w.end_word) for w in cut_into_windows([(7,)] * 45, 10, -1, -2, [], [])]
    assert spans == [(5 * i, 5 * i + 10) for i in range(8)]
    spans = [(w.first_word, w.end_word) for w in cut_into_windows([(7, 8)] * 13, 10, -1, -2, [], [])]
    assert spans == [(0, 5), (3, 8), (6, 11), (8, 13)]  # the last one is as long as it can be


@given(st.lists(st.integers(1, 6), max_size=60), st.integers(12, 40))
def test_every_two_words_that_half_a_window_holds_stand_in_one_window(lengths: list[int], most_pieces: int) -> None:
    windows = cut_into_windows([(1,) * length for length in lengths], most_pieces, -1, -2, [], [])
    for first in range(len(lengths)):
        for end in range(first + 1, len(lengths) + 1):
            if sum(lengths[first:end]) <= most_pieces // 2 - 5:  # a border of words may lie 5 pieces off the half
                assert any(window.holds(first, end) for window in windows)


def test_a_short_sentence_is_read_with_its_context() -> None:
    [window] = cut_into_windows([(5, 6), (7,)], 8, 1, 2, [3, 4], [8])
    assert window.piece_ids == [1, 3, 4, 5, 6, 7, 8, 2] and window.first_pieces == [3, 5]


def test_best_windows_prefers_distance_from_cuts_but_not_from_ends_of_the_sentence():
    windows = np.array([[0, 10], [5, 15], [10, 20]])
    spans = np.array([[0, 1], [6, 7], [7, 8], [8, 9], [14, 16], [4, 11], [19, 20]])
    assert best_windows(spans, windows, 20).tolist() == [0, 0, 0, 1, 2, -1, 2]
