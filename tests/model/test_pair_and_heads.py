"""The span pair encoder and the heads against their formulas."""

import pytest
import torch
import torch.nn.functional as F

from spe_dist.model.heads import ContrastiveHead, PermutationHead, TokenBoundaryHead
from spe_dist.model.pair import PairEncoder


def build_pair(activation="tanh", dtype=torch.float64):
    torch.manual_seed(0)
    encoder = PairEncoder(12, 10, 20, 6, activation, 0.0).to(dtype)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter)
    return encoder


def plain_pair(encoder, spans_FH, cls_D, activation):
    """The paper's equation, one span at a time."""
    table = {distance: encoder.position_embedding.weight[distance + 3] for distance in range(-3, 4)}
    scores = []
    for h_j, to_s1, to_s2 in zip(spans_FH, (-1, 0, 1, 2, 3), (-3, -2, -1, 0, 1), strict=True):
        inner = encoder.input_linear.weight @ h_j + encoder.query_linear.weight @ cls_D
        inner = inner + encoder.feature_linear.weight @ torch.cat([table[to_s1], table[to_s2]])
        scores.append(encoder.score_linear.weight[0] @ activation(inner))
    return torch.stack(scores).softmax(0) @ spans_FH


@pytest.mark.parametrize(("name", "activation"), [("tanh", torch.tanh), ("gelu", F.gelu)])
def test_span_pair_vectors_and_gradients_equal_the_papers_equation(name, activation):
    encoder = build_pair(name)
    spans_QFH = torch.randn(3, 5, 10, dtype=torch.float64, requires_grad=True)
    cls_QD = torch.randn(3, 12, dtype=torch.float64, requires_grad=True)
    ours = encoder(spans_QFH, cls_QD)
    plain = torch.stack([plain_pair(encoder, s, c, activation) for s, c in zip(spans_QFH, cls_QD, strict=True)])
    torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-6)  # the softmax is float32
    inputs = [spans_QFH, cls_QD, *encoder.parameters()]
    weights = torch.randn(3, 10, dtype=torch.float64)
    ours_gradients = torch.autograd.grad((ours * weights).sum(), inputs)
    plain_gradients = torch.autograd.grad((plain * weights).sum(), inputs)
    for mine, theirs in zip(ours_gradients, plain_gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_the_softmax_of_large_half_precision_scores_is_taken_in_float32():
    encoder = build_pair(dtype=torch.float16)
    vectors = encoder(torch.randn(2, 5, 10).half() * 100, torch.randn(2, 12).half() * 100)
    assert vectors.dtype == torch.float16 and torch.isfinite(vectors).all()


def test_token_boundary_logits_equal_the_formula_and_far_offsets_are_clamped():
    torch.manual_seed(0)
    head = TokenBoundaryHead(8, 30, 6, 4, dropout=0.0)
    states_MD, offsets_M = torch.randn(3, 8), torch.tensor([1, 3, 99])
    rows = torch.cat([states_MD, head.offset_embedding.weight[[1, 3, 3]]], dim=1)
    hidden = F.layer_norm(F.gelu(head.mlp.linear(rows)), (8,), eps=1e-12)
    torch.testing.assert_close(head(states_MD, offsets_M), hidden @ head.decoder.weight.T + head.decoder.bias)


def test_sizes_of_the_heads_are_those_of_the_method():
    assert PermutationHead(300, 0.1)(torch.randn(2, 300)).shape == (2, 6)
    assert ContrastiveHead(300, 768, 0.1)(torch.randn(2, 300)).shape == (2, 768)
    head = TokenBoundaryHead(768, 1000, 200, 150, 0.1)
    assert head.mlp.linear.weight.shape == (768, 968)
    assert head.decoder.weight.shape == (1000, 768)
