"""Any spans of a batch against the span encoder's own pass over copies of their words, values and gradients."""

import itertools

import pytest
import torch

from spe_dist.data.batches.packed import SPANS
from spe_dist.model.pair import PairEncoder
from spe_dist.model.span import SpanEncoder

WORDS = 60
SPANS_OF = {
    "short ones, empty ones and equal ones": [(0, 1), (3, 3), (7, 9), (7, 9), (59, 60), (60, 60), (0, 0), (20, 25)],
    "long ones that overlap": [(0, 60), (0, 6), (1, 7), (10, 43), (11, 43), (10, 42), (54, 60), (10, 43), (2, 10)],
    "both": [(5, 5), (0, 30), (4, 5), (30, 60), (29, 31), (12, 12), (8, 24), (9, 24)],
    "one empty span": [(0, 0)],
    "all": list(itertools.combinations(range(0, 61, 4), 2)),
}


def build(widths=(2, 3, 4), dtype=torch.float64):
    torch.manual_seed(0)
    encoder = SpanEncoder(8, widths, 6, 10, 0.0).to(dtype)
    for conv in encoder.conv_layers:  # strongly negative values too, where GELU is not monotone
        torch.nn.init.normal_(conv.bias, -1.0, 1.0)
    return encoder


def copies(encoder, words_WD, spans):
    index = torch.tensor([word for start, end in spans for word in range(start, end)], dtype=torch.int64)
    borders = torch.tensor([0, *itertools.accumulate(end - start for start, end in spans)])
    return encoder(words_WD[index], borders)


def free(encoder, words_WD, spans):
    start_S, end_S = torch.tensor(spans).T
    return encoder.free_spans(encoder.word_tables(words_WD), start_S, end_S)


@pytest.mark.parametrize("widths", [(2, 3, 4), (1,), (5, 2), (9,)], ids=str)
@pytest.mark.parametrize("spans", SPANS_OF.values(), ids=SPANS_OF.keys())
def test_values_and_gradients_equal_those_of_copied_words(spans, widths):
    encoder = build(widths)
    words_WD = torch.randn(WORDS, 8, dtype=torch.float64, requires_grad=True)
    inputs = [words_WD, *encoder.parameters()]
    weights = torch.randn(len(spans), 10, dtype=torch.float64)
    ours, plain = free(encoder, words_WD, spans), copies(encoder, words_WD, spans)
    torch.testing.assert_close(ours, plain)
    ours_gradients = torch.autograd.grad((ours * weights).sum(), inputs)
    plain_gradients = torch.autograd.grad((plain * weights).sum(), inputs)
    for mine, theirs in zip(ours_gradients, plain_gradients, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_one_set_of_tables_serves_several_calls():
    encoder = build()
    words_WD = torch.randn(WORDS, 8, dtype=torch.float64)
    tables = encoder.word_tables(words_WD)
    for spans in SPANS_OF.values():
        start_S, end_S = torch.tensor(spans).T
        torch.testing.assert_close(encoder.free_spans(tables, start_S, end_S), copies(encoder, words_WD, spans))


def test_autocast_gives_nearly_the_same_vectors():
    encoder = build(dtype=torch.float32)
    words_WD = torch.randn(WORDS, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = free(encoder, words_WD, SPANS_OF["both"])
    assert (ours.float() - copies(encoder, words_WD, SPANS_OF["both"])).abs().max() < 0.1


@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_pairs_that_share_spans_equal_pairs_with_spans_of_their_own(activation):
    torch.manual_seed(0)
    pair_encoder = PairEncoder(8, 10, 7, 4, activation, 0.0).double()
    spans_SH = torch.randn(6, 10, dtype=torch.float64, requires_grad=True)
    cls_QD = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)
    span_PF, sequence_P = torch.randint(6, (9, SPANS)), torch.randint(3, (9,))
    ours = pair_encoder.free_pairs(spans_SH, cls_QD, span_PF, sequence_P)
    plain = pair_encoder(spans_SH[span_PF], cls_QD[sequence_P])
    torch.testing.assert_close(ours, plain)
    inputs = [spans_SH, cls_QD, *pair_encoder.parameters()]
    weights = torch.randn_like(ours)
    for mine, theirs in zip(
        torch.autograd.grad((ours * weights).sum(), inputs),
        torch.autograd.grad((plain * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)
