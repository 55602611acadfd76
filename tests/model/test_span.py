"""The span encoder against nn.Conv1d on one span at a time, values and gradients."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from spe_dist.model.span import SpanEncoder, segment_max

WIDTHS = {
    "empty and one-word spans": [0, 1, 3, 0, 0, 1, 10, 2, 4, 0, 5, 1, 1, 1, 1],
    "one word": [0, 1, 0, 0, 0],
    "no word at all": [0, 0, 0, 0, 0],
    "one long span": [37],
}


def build(hidden_size=12, dtype=torch.float32, dropout=0.0):
    torch.manual_seed(0)
    encoder = SpanEncoder(hidden_size, (2, 3, 4), 10, 30, dropout).to(dtype)
    for conv in encoder.conv_layers:  # strongly negative values too, where GELU is not monotone
        torch.nn.init.normal_(conv.bias, -1.0, 1.0)
    return encoder


def reference(encoder, word_states_WD, widths):
    """Each span alone: zeros around it, so that every window that overlaps it and the window of zeros are seen."""
    vectors = []
    for states_nD in word_states_WD.split(widths):
        features = []
        for conv in encoder.conv_layers:
            k = conv.kernel_size[0]
            padded_1DN = F.pad(states_nD.T[None], (k, k))
            features.append(F.gelu(F.conv1d(padded_1DN, conv.weight, conv.bias)).amax(dim=2)[0])
        vectors.append(torch.cat(features))
    return encoder.mlp(torch.stack(vectors))


def borders(widths):
    return torch.tensor([0, *itertools.accumulate(widths)])


@pytest.mark.parametrize("widths", WIDTHS.values(), ids=WIDTHS.keys())
def test_values_and_gradients_equal_a_convolution_of_each_span_alone(widths):
    encoder = build(dtype=torch.float64)
    words_WD = torch.randn(sum(widths), 12, dtype=torch.float64, requires_grad=True)
    inputs = [words_WD, *encoder.parameters()]
    weights = torch.randn(len(widths), 30, dtype=torch.float64)
    ours, plain = encoder(words_WD, borders(widths)), reference(encoder, words_WD, widths)
    torch.testing.assert_close(ours, plain)
    ours_gradients = torch.autograd.grad((ours * weights).sum(), inputs)
    plain_gradients = torch.autograd.grad((plain * weights).sum(), inputs)
    for mine, theirs in zip(ours_gradients, plain_gradients, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_gradients_equal_finite_differences():
    encoder = build(hidden_size=4, dtype=torch.float64)
    words_WD = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda words: encoder(words, borders([0, 1, 4, 0, 2])), (words_WD,))


def test_an_empty_span_has_the_value_of_gelu_of_the_bias():
    encoder = build()
    expected = encoder.mlp(F.gelu(torch.cat([conv.bias for conv in encoder.conv_layers])))
    vectors_SH = encoder(torch.randn(3, 12), borders([0, 3, 0, 0, 0]))
    torch.testing.assert_close(vectors_SH[3], expected)


def test_a_span_does_not_see_its_neighbours():
    encoder = build()
    words_WD = torch.randn(9, 12)
    alone = encoder(words_WD[3:5], borders([2]))
    among = encoder(words_WD, borders([3, 2, 4]))
    torch.testing.assert_close(among[1:2], alone)


def test_equal_maxima_share_the_gradient_evenly():
    values_NC = torch.tensor([[1.0, 3.0], [1.0, 4.0], [0.0, 4.0], [2.0, -1.0], [2.0, 0.0]], requires_grad=True)
    maxima_SC = segment_max(values_NC, torch.tensor([0, 0, 0, 1, 1]), torch.tensor([3, 2]))
    (maxima_SC * torch.tensor([[1.0, 10.0], [-100.0, 1000.0]])).sum().backward()
    assert values_NC.grad[:, 0].tolist() == [0.5, 0.5, 0.0, -50.0, -50.0]
    assert values_NC.grad[:, 1].tolist() == [0.0, 5.0, 5.0, 0.0, 1000.0]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.08), (torch.float16, 0.01)])
def test_16_bit_weights_give_nearly_the_same_vectors(dtype, tolerance):
    widths = WIDTHS["empty and one-word spans"]
    words_WD = torch.randn(sum(widths), 12)
    plain = build()(words_WD, borders(widths))
    ours = build(dtype=dtype)(words_WD.to(dtype), borders(widths))
    ours.sum().backward()
    assert (ours.float() - plain).abs().max() < tolerance


def test_convolutions_start_at_torchs_default_and_linear_layers_at_a_fiftieth():
    torch.manual_seed(0)
    encoder = SpanEncoder(64, (2, 3, 4), 100, 300, 0.1)
    bound = (64 * 3) ** -0.5
    assert encoder.conv_layers[1].weight.shape == (100, 64, 3)
    assert 0.9 * bound < encoder.conv_layers[1].weight.abs().max() <= bound
    assert abs(encoder.mlp.linear.weight.std().item() - 0.02) < 1e-3
    assert encoder.mlp.layer_norm.eps == 1e-12
