"""Candidates of a batch against loops over spans and pairs."""

import itertools

import pytest
import torch

from spe_dist.extraction.joint.batch import collate
from spe_dist.extraction.joint.candidates import (
    all_pairs,
    best_window,
    cut_in_five,
    in_windows,
    predicted_spans,
    typing_candidates,
    with_gold_pairs,
)
from spe_dist.extraction.joint.examples import make_examples

CASES = {"one window": ([12, 1, 0, 25], 80), "windows": ([12, 1, 50, 0, 25], 18), "nothing": ([0, 0], 80)}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(joint, request):
    """(examples, batch, spans that a random tagging says, sorted and disjoint)."""
    lengths, max_pieces = request.param
    examples = make_examples(joint.random_sentences(6, lengths), joint.tokenizer(), joint.LABELS, max_pieces)
    batch = collate(examples)
    torch.manual_seed(0)
    found = []
    for start, end in itertools.pairwise(batch.sentence_borders_B1.tolist()):
        word = start
        while word < end:
            width = min(int(torch.randint(1, 4, ())), end - word)
            if torch.rand(()) < 0.4:
                found.append((word, word + width))
            word += width
    return examples, batch, found


def columns(rows, width=2):
    return tuple(torch.tensor(rows, dtype=torch.int64).reshape(-1, width).T.contiguous())


def plain_window(examples, batch, start, end):
    """Number of the window in the batch, -1 for none, by trying all windows of the sentence."""
    sentence = max(i for i, border in enumerate(batch.sentence_borders_B1[:-1].tolist()) if border <= start)
    before = int(batch.sentence_borders_B1[sentence])
    example, best, best_margin = examples[sentence], -1, -1
    for number, window in enumerate(example.windows, start=int(batch.window_borders_B1[sentence])):
        low, high = window.first_word + before, window.end_word + before
        if low <= start and end <= high:
            left = start - low if window.first_word else 10**6
            right = high - end if window.end_word < example.n_words else 10**6
            if min(left, right) > best_margin:
                best, best_margin = number, min(left, right)
    return best


def test_typing_candidates_are_predicted_and_gold_spans_each_once(case):
    examples, batch, found = case
    predicted = predicted_spans(batch, *columns(found))
    spans, gold = typing_candidates(batch, predicted)
    kept = {span for span in found if plain_window(examples, batch, *span) >= 0}
    golden = dict(
        zip(
            zip(batch.entity_start_E.tolist(), batch.entity_end_E.tolist(), strict=True),
            batch.entity_class_E.tolist(),
            strict=True,
        )
    )
    ours = list(zip(spans.start_S.tolist(), spans.end_S.tolist(), strict=True))
    assert ours == sorted(kept | golden.keys())
    assert predicted.overlong == len(found) - len(kept)
    assert gold.class_S.tolist() == [golden.get(span, 0) for span in ours]
    assert gold.is_predicted_S.tolist() == [span in kept for span in ours]
    assert spans.window_S.tolist() == [plain_window(examples, batch, *span) for span in ours]
    assert [ours[row] for row in gold.row_E.tolist()] == list(golden)


def test_pairs_are_all_that_do_not_overlap_and_all_gold_ones(case):
    examples, batch, found = case
    spans, gold = typing_candidates(batch, predicted_spans(batch, *columns(found)))
    torch.manual_seed(1)
    is_entity_S = torch.rand(spans.count) < 0.7
    pairs = all_pairs(batch, spans, is_entity_S)
    sentence, start, end = spans.sentence_S.tolist(), spans.start_S.tolist(), spans.end_S.tolist()
    chosen = [i for i in range(spans.count) if is_entity_S[i]]
    together = [(i, j) for i, j in itertools.combinations(chosen, 2) if sentence[i] == sentence[j]]
    behind = [(i, j) for i, j in together if end[i] <= start[j]]
    wanted = [(i, j) for i, j in behind if plain_window(examples, batch, start[i], end[j]) >= 0]
    assert list(zip(pairs.first_P.tolist(), pairs.second_P.tolist(), strict=True)) == wanted
    assert (pairs.overlapping, pairs.apart) == (len(together) - len(behind), len(behind) - len(wanted))

    joined, class_P = with_gold_pairs(batch, spans, gold, pairs)
    golden = {
        (int(gold.row_E[a]), int(gold.row_E[b])): label
        for a, b, label in zip(batch.pair_first_R, batch.pair_second_R, batch.pair_class_R.tolist(), strict=True)
    }
    ours = list(zip(joined.first_P.tolist(), joined.second_P.tolist(), strict=True))
    assert ours == sorted({*wanted, *golden})
    assert class_P.tolist() == [golden.get(pair, 0) for pair in ours]
    assert joined.window_P.tolist() == [plain_window(examples, batch, start[i], end[j]) for i, j in ours]


def test_five_spans_partition_the_window_and_equal_ones_are_one(case):
    _, batch, found = case
    spans, _ = typing_candidates(batch, predicted_spans(batch, *columns(found)))
    pairs = all_pairs(batch, spans, torch.ones(spans.count, dtype=torch.bool))
    if pairs.count == 0:
        return
    five = cut_in_five(batch, spans, pairs)
    typed_start_S, typed_end_S = in_windows(batch, spans.window_S, spans.start_S, spans.end_S)
    start_N = torch.cat([typed_start_S, five.entity_start_U, five.context_start_V])
    end_N = torch.cat([typed_end_S, five.entity_end_U, five.context_end_V])
    start, end = start_N[five.row_PF], end_N[five.row_PF]
    for p, window in enumerate(pairs.window_P.tolist()):
        shift = int(batch.word_borders_Q1[window] - batch.window_first_Q[window])
        first, second = pairs.first_P[p], pairs.second_P[p]
        cuts = [
            int(batch.word_borders_Q1[window]),
            *(int(word) + shift for span in (first, second) for word in (spans.start_S[span], spans.end_S[span])),
            int(batch.word_borders_Q1[window + 1]),
        ]
        wanted = [(a, b) if a < b else (0, 0) for a, b in itertools.pairwise(cuts)]
        assert list(zip(start[p].tolist(), end[p].tolist(), strict=True)) == wanted
    n_entities = spans.count + five.entity_start_U.shape[0]
    assert ((five.row_PF < n_entities) == torch.tensor([False, True, False, True, False])).all()
    every = list(zip(start_N.tolist(), end_N.tolist(), strict=True))
    for kind in (every[:n_entities], every[n_entities:]):
        assert len(set(kind)) == len(kind)


def test_best_window_of_random_spans(case):
    examples, batch, _ = case
    torch.manual_seed(2)
    asked = []
    for sentence, (low, high) in enumerate(itertools.pairwise(batch.sentence_borders_B1.tolist())):
        for _ in range(20 if high > low else 0):
            start = int(torch.randint(low, high, ()))
            asked.append((sentence, start, int(torch.randint(start + 1, high + 1, ()))))
    sentence_S, start_S, end_S = columns(asked, 3)
    ours = best_window(batch, sentence_S, start_S, end_S).tolist()
    assert ours == [plain_window(examples, batch, start, end) for _, start, end in asked]
