"""BIEOU tags: from spans and back, decoding against trying all sequences."""

import itertools

import numpy as np
import pytest
import torch

from spe_dist.extraction.joint.tags import TAGS, best_tags, flat_spans, spans_of_tags, tags_of_spans

AFTER = {"start": "OBU", "O": "OBU", "E": "OBU", "U": "OBU", "B": "IE", "I": "IE"}


def is_valid(tags):
    names = ["start", *(TAGS[tag] for tag in tags)]
    return all(b in AFTER[a] for a, b in itertools.pairwise(names)) and names[-1] not in "BI"


def decode(scores, lengths):
    borders = torch.tensor([0, *itertools.accumulate(lengths)])
    return best_tags(scores, borders, max(lengths)), borders


@pytest.mark.parametrize("seed", range(4))
def test_decoding_finds_the_best_of_all_valid_sequences(seed):
    torch.manual_seed(seed)
    lengths = [3, 1, 0, 5, 4, 2, 5, 0]
    scores_G5 = torch.randn(sum(lengths), 5).log_softmax(1)
    tags_G, borders = decode(scores_G5, lengths)
    for start, end in itertools.pairwise(borders.tolist()):
        found = tags_G[start:end].tolist()
        best = max(
            (tags for tags in itertools.product(range(5), repeat=end - start) if is_valid(tags)),
            key=lambda tags: sum(scores_G5[start + i, tag].item() for i, tag in enumerate(tags)),
        )
        assert found == list(best)


def test_decoded_tags_are_valid_however_extreme_the_scores():
    torch.manual_seed(0)
    lengths = [17, 1, 40, 2]
    tags_G, borders = decode(100 * torch.randn(60, 5), lengths)
    assert all(is_valid(tags_G[a:b].tolist()) for a, b in itertools.pairwise(borders.tolist()))


def test_decoding_no_words_gives_no_tags():
    tags_G = best_tags(torch.zeros(0, 5), torch.tensor([0, 0, 0]), 0)
    assert tags_G.shape == (0,)
    assert [part.shape for part in spans_of_tags(tags_G)] == [(0,), (0,)]


def test_spans_become_tags_and_tags_the_same_spans():
    spans = [(0, 1), (1, 3), (4, 8), (9, 10)]
    tags = tags_of_spans(spans, 10)
    assert "".join(TAGS[tag] for tag in tags) == "UBEOBIIEOU"
    start_S, end_S = spans_of_tags(torch.from_numpy(tags))
    assert list(zip(start_S.tolist(), end_S.tolist(), strict=True)) == spans


def test_of_overlapping_spans_the_longest_give_the_tags():
    assert flat_spans([(2, 4), (0, 3), (3, 4), (6, 7), (6, 7), (8, 10), (9, 11)]) == [(0, 3), (3, 4), (6, 7), (8, 10)]
    assert flat_spans([(0, 2), (1, 5)]) == [(1, 5)] and flat_spans([(1, 3), (0, 2)]) == [(0, 2)]
    assert flat_spans([]) == []
    assert np.array_equal(tags_of_spans([], 2), [3, 3])
